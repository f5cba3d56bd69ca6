"""A model's own config.json -> its shape, for the memory table and for what the model refuses.

Known kinds of models alone: of others nothing is said, and the engine measures. What the file holds is text of
strangers: numbers are bounded, everything else is compared with names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.errors import shown
from muster.spec.shape import Shape

_MOST = 1 << 24
FP8_BLOCK_BITS = 8 + 32 / 128**2
"""One 4-byte scale for each block of 128 x 128."""
MXFP4_BITS = 4.25

# Model types of config.json whose layers are told by the keys read below.
_GQA = frozenset(
    {"llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "glm4_moe", "minimax_m2", "seed_oss"}
    | {"gpt_oss", "gemma3_text", "llama4_text", "qwen3_next", "qwen3_vl_text", "qwen3_vl_moe_text", "glm4v_moe_text"}
)
_MLA = frozenset({"deepseek_v2", "deepseek_v3", "kimi_k2", "deepseek_v32", "glm_moe_dsa"})
_INSIDE = ("text_config", "llm_config", "language_config")


class NotUnderstood(ValueError):
    """A config.json of which muster cannot tell the cache; says why."""


def shape_of(config: Mapping[str, Any], *, weight_bytes: int = 0) -> Shape:
    """Return a model's shape.

    Args:
        config: what config.json holds.
        weight_bytes: of all its weights on disk, where that is known.

    Raises:
        NotUnderstood: a kind of model, layer or quantisation that is not known here.
    """
    text = next((config[name] for name in _INSIDE if isinstance(config.get(name), Mapping)), config)
    kind = str(text.get("model_type", ""))
    if kind not in _GQA | _MLA:
        raise NotUnderstood(f"model_type {shown(kind)} is not known")
    layers = _number(text, "num_hidden_layers", least=1)
    heads = _number(text, "num_attention_heads", least=1)
    hidden = _number(text, "hidden_size", least=1)
    experts = _first(text, "n_routed_experts", "num_experts", "num_local_experts")
    bits, block = _bits(config.get("quantization_config") or text.get("quantization_config"), known=weight_bytes > 0)
    windows, states = _kinds(text, kind, layers)
    moe = _first(text, "moe_intermediate_size") or _number(text, "intermediate_size", least=1)
    shape: dict[str, Any] = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": _first(text, "intermediate_size_mlp") or _number(text, "intermediate_size", least=1),
        "num_attention_heads": heads,
        "vocab_size": _number(text, "vocab_size", least=1),
        "window_layers": windows,
        "window": _first(text, "sliding_window", "attention_chunk_size") if windows else 0,
        "state_layers": states,
        "state_bytes": _state_bytes(text) if states else 0,
        "weight_block": block,
        "weight_bytes": weight_bytes,
        "expert_bits": bits["experts"],
        "linear_bits": bits["linear"],
    }
    if experts:
        shape |= {
            "n_routed_experts": experts,
            "moe_intermediate_size": moe,
            "first_k_dense_replace": _first(text, "first_k_dense_replace") or _between(text, layers),
            "n_shared_experts": 1 if kind == "llama4_text" else _first(text, "n_shared_experts"),
        }
    if kind in _MLA:
        names = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        shape |= {name: _first(text, name) for name in names}
        shape["index_head_dim"] = _first(text, "index_head_dim")
        shape["index_layers"] = _index_layers(text, layers) if shape["index_head_dim"] else 0
        if not shape["kv_lora_rank"]:
            raise NotUnderstood("no kv_lora_rank")
    else:
        shape["num_key_value_heads"] = _first(text, "num_key_value_heads") or heads
        shape["head_dim"] = _first(text, "head_dim") or hidden // heads
    return Shape.model_validate(shape)


def _kinds(text: Mapping[str, Any], kind: str, layers: int) -> tuple[int, int]:
    """Return how many layers keep a window of tokens, and how many a state; all others keep every token."""
    types = text.get("layer_types")
    if isinstance(types, list):
        if len(types) != layers:
            raise NotUnderstood(f"layer_types names {len(types)} layers of {layers}")
        windows = sum(name in ("sliding_attention", "chunked_attention") for name in types)
        states = types.count("linear_attention")
        if windows + states + types.count("full_attention") != layers:
            raise NotUnderstood("layer_types holds a kind of layer that is not known")
        return windows, states
    if kind == "qwen3_next":
        return 0, layers - layers // (_first(text, "full_attention_interval") or 4)
    if kind == "llama4_text":
        # Without rotary embedding a layer attends to everything; by default that is every fourth.
        listed = text.get("no_rope_layers")
        rope = sum(bool(each) for each in listed) if isinstance(listed, list) and listed else layers - layers // 4
        return (rope if _first(text, "attention_chunk_size") else 0), 0
    if kind == "gemma3_text":
        return layers - layers // (_first(text, "sliding_window_pattern") or 6), 0
    if kind == "gpt_oss":
        return (layers + 1) // 2, 0
    if kind in _GQA and _first(text, "sliding_window") and text.get("use_sliding_window", True):
        if kind not in ("mistral", "mixtral"):
            raise NotUnderstood("sliding_window without layer_types")
        return layers, 0
    return 0, 0


def _index_layers(text: Mapping[str, Any], layers: int) -> int:
    """Return how many layers of sparse MLA have an indexer: the others take the choice of one before them."""
    pattern = text.get("index_topk_pattern")
    if isinstance(pattern, (str, list)):
        return layers - list(pattern[:layers]).count("S")
    every = max(1, _first(text, "index_topk_freq"))
    offset = _number(text, "index_skip_topk_offset") if text.get("index_skip_topk_offset") is not None else 2
    return sum(1 for layer in range(layers) if max(layer - offset + 1, 0) % every == 0)


def _between(text: Mapping[str, Any], layers: int) -> int:
    """Return how many layers have no experts because every nth one has."""
    return layers - layers // max(1, _first(text, "interleave_moe_layer_step", "decoder_sparse_step"))


def _state_bytes(text: Mapping[str, Any]) -> int:
    """Return what a layer of gated delta nets keeps of one request: a convolution's tail in bf16, states in fp32."""
    keys, values = (_number(text, f"linear_num_{what}_heads", least=1) for what in ("key", "value"))
    key_dim, value_dim = (_number(text, f"linear_{what}_head_dim", least=1) for what in ("key", "value"))
    tail = _number(text, "linear_conv_kernel_dim", least=1) - 1
    return tail * (2 * keys * key_dim + values * value_dim) * 2 + values * key_dim * value_dim * 4


def _bits(quantization: object, *, known: bool) -> tuple[dict[str, float], int]:
    """Return bits of a parameter of experts and of other linear layers, and the side of blocks with one scale each.

    Where the bytes on disk are `known`, they decide, and an unknown quantisation does no harm.
    """
    if not isinstance(quantization, Mapping):
        return {"experts": 16, "linear": 16}, 0
    method = quantization.get("quant_method")
    sides = quantization.get("weight_block_size")
    if method == "fp8":
        block = sides[0] if isinstance(sides, list) and len(sides) == 2 and sides[0] == sides[1] else 0
        block = block if isinstance(block, int) and 0 < block <= _MOST else 0
        bits = FP8_BLOCK_BITS if block == 128 else 8
        return {"experts": bits, "linear": bits}, block
    if method == "mxfp4":
        return {"experts": MXFP4_BITS, "linear": 16}, 0
    if not known:
        raise NotUnderstood(f"quant_method {shown(str(method))}, and no pin says how many bytes the weights have")
    return {"experts": 16, "linear": 16}, 0


def _first(text: Mapping[str, Any], *names: str) -> int:
    """Return the first of some numbers that is there; 0 where none is."""
    return next((_number(text, name) for name in names if text.get(name) is not None), 0)


def _number(text: Mapping[str, Any], name: str, *, least: int = 0) -> int:
    value = text.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise NotUnderstood(f"{name} is {shown(repr(value)[:80])}")
    return value
