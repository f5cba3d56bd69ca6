"""What the cache takes on one GPU: bytes of every further token, and what one request holds besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from muster.plan.layout import Layout
from muster.spec.shape import Shape
from muster.spec.strategy import FlagValue

SPARSE_FP8_BYTES = 656
"""Of one token and layer of sparse MLA in FP8: 512 values, 16 bytes of scales, 64 rotary values in bf16."""
INDEXER_SCALE_BYTES = 4
"""Beside each token's index key, which is FP8 whatever the cache is."""

WINDOW_BLOCK = 64
"""A window begins inside a block, which is held whole: of 16 tokens to 128, by the attention's backend."""
STATES_PER_REQUEST = 2
"""With prefix caching, which is on unless a flag turns it off, the state of the last whole block is kept as well."""


def is_fp8(flags: Mapping[str, FlagValue]) -> bool:
    """Whether flags ask for an FP8 cache."""
    return str(flags.get("kv-cache-dtype", "auto")).startswith("fp8")


def element_bytes(flags: Mapping[str, FlagValue]) -> int:
    """Return the bytes of one cache element: 1 for FP8, 2 for bf16."""
    return 1 if is_fp8(flags) else 2


@dataclass(frozen=True)
class CacheSize:
    """Bytes on one GPU of the fullest stage.

    Args:
        token_bytes: of one token in the layers that keep every token, already divided by DCP.
        request_bytes: of one request of full length in all other layers: windows, and states of linear attention.
    """

    token_bytes: float
    request_bytes: int


def of(shape: Shape, layout: Layout, *, element: int, batched_tokens: int, max_model_len: int) -> CacheSize:
    """Return the cache of a model on these ranks.

    Args:
        shape: the model.
        layout: parallel sizes.
        element: bytes of one cache element (2 for bf16, 1 for fp8).
        batched_tokens: of one batch: a window keeps those in flight too.
        max_model_len: context length in tokens.
    """
    windows, states = shape.window_layers, shape.state_layers
    full = shape.num_hidden_layers - windows - states
    token = _token_bytes(shape, layout, element)
    kept = min(max_model_len, shape.window + batched_tokens + WINDOW_BLOCK)
    request = ceil(windows / layout.pp) * token * kept
    request += ceil(states / layout.pp) * STATES_PER_REQUEST * shape.state_bytes / layout.tp
    whole = token * ceil(full / layout.pp) + _index_bytes(shape) * ceil((shape.index_layers or full) / layout.pp)
    return CacheSize(whole / layout.dcp, int(request))


def _token_bytes(shape: Shape, layout: Layout, element: int) -> float:
    """Return the bytes of one token in one layer on one GPU, before DCP divides them.

    MLA keeps one latent vector and the rotary part (512 + 64 for K2), the same on every TP rank.
    """
    if shape.kv_lora_rank:
        if shape.index_head_dim and element == 1:
            return SPARSE_FP8_BYTES
        return (shape.kv_lora_rank + shape.qk_rope_head_dim) * element
    heads = max(1, shape.kv_heads // layout.tp)
    return 2 * heads * shape.head_dim * element


def _index_bytes(shape: Shape) -> int:
    """Return the bytes of one token that an indexer keeps, the same on every TP rank."""
    return shape.index_head_dim + INDEXER_SCALE_BYTES if shape.index_head_dim else 0
