from __future__ import annotations

import json

from muster.sandbox import tiny_model


def test_the_tokenizer_has_every_byte_and_every_token_that_the_parsers_look_for() -> None:
    numbers = tiny_model.vocabulary()
    assert set(tiny_model.byte_alphabet()) <= set(numbers)
    assert len(set(tiny_model.byte_alphabet())) == 256
    assert set(tiny_model.PARSER_TOKENS) <= set(numbers)
    assert sorted(numbers.values()) == list(range(len(numbers)))


def test_the_files_agree_with_each_other() -> None:
    files = {name: json.loads(text) for name, text in tiny_model.files().items()}
    config, tokenizer = files["config.json"], files["tokenizer.json"]
    assert config["vocab_size"] == len(tokenizer["model"]["vocab"])
    for token in tokenizer["added_tokens"]:
        assert tokenizer["model"]["vocab"][token["content"]] == token["id"]
    end = files["tokenizer_config.json"]["eos_token"]
    assert tokenizer["model"]["vocab"][end] == config["eos_token_id"] == files["generation_config.json"]["eos_token_id"]
    assert config["hidden_size"] // config["num_attention_heads"] == 64


def test_the_shape_is_that_of_the_configuration() -> None:
    config = tiny_model.config()
    for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
        assert tiny_model.SHAPE[key] == config[key]
    assert tiny_model.SHAPE["vocab_size"] >= config["vocab_size"]
