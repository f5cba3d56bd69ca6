"""A small Kimi-K2-shaped model directory: configuration and tokenizer, and weights where dummy ones will not do.

    python tests/gpu/model.py DIR [--layers 6] [--hidden 4096] [--experts 64] [--weights none|bf16|fp8]

`fp8` writes random weights as the released model has them: FP8 (e4m3) with one scale for each block of 128 x 128.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

BLOCK = 128
TOKENS = [
    "<pad>",
    "<s>",
    "</s>",
    "<think>",
    "</think>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_end|>",
    "<|tool_call_argument_begin|>",
]


K2 = {"hidden": 7168, "experts": 384, "inner": 18432, "moe": 2048}
"""Kimi-K2's own width; with few layers it is what one GPU holds of it."""


def config(
    layers: int, hidden: int, experts: int, *, inner: int = 0, moe: int = 1024, fp8: bool = False
) -> dict[str, Any]:
    """Return config.json: attention as in Kimi-K2 (MLA, 64 heads), the rest scaled down unless it is told."""
    settings: dict[str, Any] = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "kimi_k2",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "first_k_dense_replace": 1,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": inner or hidden * 2,
        "kv_lora_rank": 512,
        "max_position_embeddings": 131072,
        "moe_intermediate_size": moe,
        "moe_layer_freq": 1,
        "n_group": 1,
        "n_routed_experts": experts,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_attention_heads": 64,
        "num_experts_per_tok": 8,
        "num_hidden_layers": layers,
        "num_key_value_heads": 64,
        "num_nextn_predict_layers": 0,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "rms_norm_eps": 1e-6,
        "rope_theta": 50000.0,
        "routed_scaling_factor": 2.827,
        "scoring_func": "sigmoid",
        "tie_word_embeddings": False,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "v_head_dim": 128,
        "vocab_size": 1024,
    }
    if fp8:
        settings["quantization_config"] = {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "weight_block_size": [BLOCK, BLOCK],
        }
    return settings


def tensors(settings: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield (name, shape, kind) of every weight; kind is `linear` (quantised), `plain`, `norm` or `bias`."""
    hidden, heads = settings["hidden_size"], settings["num_attention_heads"]
    nope, rope, value = settings["qk_nope_head_dim"], settings["qk_rope_head_dim"], settings["v_head_dim"]
    rank, query = settings["kv_lora_rank"], settings["q_lora_rank"]
    yield "model.embed_tokens.weight", (settings["vocab_size"], hidden), "plain"
    for layer in range(settings["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (hidden,), "norm"
        yield f"{at}.post_attention_layernorm.weight", (hidden,), "norm"
        yield f"{at}.self_attn.q_a_proj.weight", (query, hidden), "linear"
        yield f"{at}.self_attn.q_a_layernorm.weight", (query,), "norm"
        yield f"{at}.self_attn.q_b_proj.weight", (heads * (nope + rope), query), "linear"
        yield f"{at}.self_attn.kv_a_proj_with_mqa.weight", (rank + rope, hidden), "linear"
        yield f"{at}.self_attn.kv_a_layernorm.weight", (rank,), "norm"
        yield f"{at}.self_attn.kv_b_proj.weight", (heads * (nope + value), rank), "linear"
        yield f"{at}.self_attn.o_proj.weight", (hidden, heads * value), "linear"
        if layer < settings["first_k_dense_replace"]:
            yield from _mlp(f"{at}.mlp", hidden, settings["intermediate_size"])
            continue
        yield f"{at}.mlp.gate.weight", (settings["n_routed_experts"], hidden), "plain"
        yield f"{at}.mlp.gate.e_score_correction_bias", (settings["n_routed_experts"],), "bias"
        yield from _mlp(f"{at}.mlp.shared_experts", hidden, settings["moe_intermediate_size"])
        for expert in range(settings["n_routed_experts"]):
            yield from _mlp(f"{at}.mlp.experts.{expert}", hidden, settings["moe_intermediate_size"])
    yield "model.norm.weight", (hidden,), "norm"
    yield "lm_head.weight", (settings["vocab_size"], hidden), "plain"


def _mlp(at: str, hidden: int, inner: int) -> Iterator[tuple[str, tuple[int, ...], str]]:
    yield f"{at}.gate_proj.weight", (inner, hidden), "linear"
    yield f"{at}.up_proj.weight", (inner, hidden), "linear"
    yield f"{at}.down_proj.weight", (hidden, inner), "linear"


def write_weights(out: Path, settings: dict[str, Any], *, fp8: bool) -> None:
    """Write model.safetensors with normal random weights of the model's own initial width."""
    import torch
    from safetensors.torch import save_file

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    written = {}
    for name, shape, kind in tensors(settings):
        if kind == "norm":
            written[name] = torch.ones(shape, dtype=torch.bfloat16)
        elif kind == "bias":
            written[name] = torch.randn(shape) * settings["initializer_range"]
        else:
            values = torch.randn(shape, device=device) * settings["initializer_range"]
            if kind == "linear" and fp8:
                packed, scales = _blocks(values)
                written[name] = packed.cpu()
                written[name.replace(".weight", ".weight_scale_inv")] = scales.cpu()
            else:
                written[name] = values.to(torch.bfloat16).cpu()
    save_file(written, str(out / "model.safetensors"), metadata={"format": "pt"})


def _blocks(values: Any) -> tuple[Any, Any]:
    """Return values as FP8 and the factor of each block that gives them back."""
    import torch

    rows, columns = values.shape
    padded = torch.zeros((-(-rows // BLOCK) * BLOCK, -(-columns // BLOCK) * BLOCK), device=values.device)
    padded[:rows, :columns] = values
    tiles = padded.view(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
    scales = tiles.abs().amax(dim=(1, 3)).clamp(min=1e-12) / torch.finfo(torch.float8_e4m3fn).max
    packed = (tiles / scales[:, None, :, None]).to(torch.float8_e4m3fn).view(padded.shape)
    return packed[:rows, :columns].contiguous(), scales.to(torch.float32)


BLOCK_VALUES = 1 << 26
"""Random values of the block that the large models' tensors are cut from."""


def write_blocks(out: Path, settings: dict[str, Any]) -> None:
    """Write a large model's files, one for each layer: bf16 tensors cut from one block of normal random values.

    As fast as the disk takes it: 60 GB are no time to draw. What is written leaves the page cache, as at a cold start.
    """
    import torch

    torch.manual_seed(0)
    drawn = torch.randn(BLOCK_VALUES) * settings["initializer_range"]
    block = memoryview(drawn.to(torch.bfloat16).view(torch.uint8).numpy()).cast("B")
    ones = memoryview(torch.ones(1 << 16, dtype=torch.bfloat16).view(torch.uint8).numpy()).cast("B")
    files: dict[str, list[tuple[str, tuple[int, ...], str]]] = {}
    for name, shape, kind in tensors(settings) if settings["model_type"] == "kimi_k2" else dense_tensors(settings):
        layer = name.split(".")[2] if name.startswith("model.layers.") else "rest"
        files.setdefault(f"model-{layer}.safetensors", []).append((name, shape, kind))

    def write_file(name: str) -> None:
        header, at = dict[str, Any](), 0
        for tensor, shape, _ in files[name]:
            size = 2 * math.prod(shape)
            header[tensor] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (out / name).open("wb", buffering=0) as file:
            _write_all(file, memoryview(len(text).to_bytes(8, "little") + text))
            for _, shape, kind in files[name]:
                left, source = 2 * math.prod(shape), ones if kind == "norm" else block
                while left:
                    _write_all(file, source[: min(left, len(source))])
                    left -= min(left, len(source))
            os.fsync(file.fileno())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_file, files))
    index = {tensor: name for name, held in files.items() for tensor, _, _ in held}
    (out / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), encoding="utf-8")
    leave_page_cache(out)


def _write_all(file: Any, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def leave_page_cache(out: Path) -> None:
    """Have the next reader of a model's files read the disk."""
    for path in out.glob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def dense_tensors(settings: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield (name, shape, kind) of every weight of a dense model."""
    hidden, size = settings["hidden_size"], settings["head_dim"]
    queries, keys = size * settings["num_attention_heads"], size * settings["num_key_value_heads"]
    yield "model.embed_tokens.weight", (settings["vocab_size"], hidden), "plain"
    for layer in range(settings["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (hidden,), "norm"
        yield f"{at}.post_attention_layernorm.weight", (hidden,), "norm"
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield f"{at}.self_attn.{name}_proj.weight", (rows, hidden), "linear"
        yield f"{at}.self_attn.o_proj.weight", (hidden, queries), "linear"
        yield from _mlp(f"{at}.mlp", hidden, settings["intermediate_size"])
    yield "model.norm.weight", (hidden,), "norm"
    yield "lm_head.weight", (settings["vocab_size"], hidden), "plain"


def write_tokenizer(out: Path) -> None:
    """Write a byte-level tokenizer with the special tokens that the model's parsers look for."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["hello world this is a tiny tokenizer for tests"] * 10, trainer)
    tokenizer.save(str(out / "tokenizer.json"))
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": 131072,
        "chat_template": template,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(tokenizer_config), encoding="utf-8")


def dense(layers: int, hidden: int) -> dict[str, Any]:
    """Return config.json of a dense model: its data parallel ranks need no collective, so two can share one GPU."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": hidden * 4,
        "max_position_embeddings": 131072,
        "num_attention_heads": hidden // 128,
        "num_hidden_layers": layers,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 1024,
    }


def write(
    out: Path,
    *,
    layers: int = 6,
    hidden: int = 4096,
    experts: int = 64,
    inner: int = 0,
    moe: int = 1024,
    dense_layers: int = 1,
    weights: str = "none",
) -> Path:
    """Write the whole directory once and return it; a complete one is left as it is. No experts: a dense model."""
    if (out / "complete").exists():
        return out
    out.mkdir(parents=True, exist_ok=True)
    sizes = {"inner": inner, "moe": moe, "fp8": weights == "fp8"}
    settings = config(layers, hidden, experts, **sizes) if experts else dense(layers, hidden)
    if experts:
        settings["first_k_dense_replace"] = dense_layers
    (out / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    write_tokenizer(out)
    if weights == "disk":
        write_blocks(out, settings)
    elif weights != "none":
        write_weights(out, settings, fp8=weights == "fp8")
    (out / "complete").touch()
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--weights", choices=["none", "bf16", "fp8"], default="none")
    write(**vars(parser.parse_args()))
