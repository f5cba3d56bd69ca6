"""A tiny Llama without weights, for `--load-format dummy`: the directory that the sandbox's hosts serve. Pure.

Its tokenizer knows every byte, the tokens that the kimi_k2 parsers look for, and a few hundred made-up words, so that
an untrained model babbles in letters. Its answers mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

PATH = "/srv/muster/models/tiny"
"""Where it lies on a host."""

LAYERS = 2
HIDDEN = 256
HEADS = 4
"""Head size 64, which vLLM's CPU attention takes."""
MAX_LENGTH = 2048

SHAPE = {
    "num_hidden_layers": LAYERS,
    "first_k_dense_replace": LAYERS,
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * HIDDEN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": HIDDEN // HEADS,
    "vocab_size": 1024,
}
"""Its size in the terms of a recipe, for the memory table: a few megabytes."""

# vllm/parser/kimi_k2.py (0.32.0) refuses to start when one of these is not in the vocabulary.
PARSER_TOKENS = (
    "<think>",
    "</think>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_end|>",
    "<|tool_call_argument_begin|>",
)
_CONTROL_TOKENS = ("<pad>", "<s>", "</s>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_end|>")
_EOS = 2

_TEMPLATE = (
    "{% if tools %}<|im_system|>{{ tools | tojson }}<|im_end|>{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|im_user|>{% elif message.role == 'assistant' %}<|im_assistant|>"
    "{% else %}<|im_system|>{% endif %}"
    "{{ message.content }}<|im_end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_assistant|>{% endif %}"
)


def byte_alphabet() -> list[str]:
    """Return the character that stands for each byte 0 to 255 in a byte-level tokenizer (GPT-2's table)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(hidden)) for byte in range(256)]


def _words() -> list[str]:
    syllables = [c + v for c in "bdfgklmnprstv" for v in "aeiou"]
    space = byte_alphabet()[ord(" ")]
    # A step that shares no factor with the count visits all pairs without repeating a first syllable at once.
    pairs = [(i, (i * 7 + 3 * turn) % len(syllables)) for turn in range(6) for i in range(len(syllables))]
    return list(dict.fromkeys(space + syllables[a] + syllables[b] for a, b in pairs))


def vocabulary() -> dict[str, int]:
    """Return every token and its number: control tokens, parser tokens, bytes, words."""
    tokens = [*_CONTROL_TOKENS, *PARSER_TOKENS, *byte_alphabet(), *_words()]
    return {token: number for number, token in enumerate(tokens)}


def config() -> dict[str, Any]:
    """Return config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_LENGTH,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": len(vocabulary()),
        "bos_token_id": 1,
        "eos_token_id": _EOS,
        "pad_token_id": 0,
        "torch_dtype": "bfloat16",
    }


def tokenizer() -> dict[str, Any]:
    """Return tokenizer.json: byte-level BPE without merges."""
    numbers = vocabulary()
    added = [
        {
            "id": numbers[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            # Thinking tokens are text that a reader sees, as in the Kimi tokenizer.
            "special": "think" not in token,
        }
        for token in (*_CONTROL_TOKENS, *PARSER_TOKENS)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": numbers,
            "merges": [],
        },
    }


def files() -> Mapping[str, str]:
    """Return the model directory: file name to text."""
    contents = {
        "config.json": config(),
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": _EOS, "pad_token_id": 0},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "model_max_length": MAX_LENGTH,
            "chat_template": _TEMPLATE,
        },
    }
    return {name: json.dumps(content, ensure_ascii=False, indent=1) + "\n" for name, content in contents.items()}
