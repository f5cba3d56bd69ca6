"""What fits: bytes per GPU from the model's shape, and the arithmetic in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from muster.plan import cache_size
from muster.plan.layout import Layout
from muster.spec.hardware import GIB, Gpu
from muster.spec.shape import Shape

# CUDA context, NCCL buffers and CUDA graphs. With the next figure it is calibrated on one published
# measurement, 715,072 cache tokens for Kimi-K2-Thinking at TP8 on 8x H200; an allowance, not a law.
FIXED_ALLOWANCE = 2 * GIB
# Peak activations while profiling, in bf16 hidden vectors for each token of one batch.
HIDDEN_VECTORS_PER_TOKEN = 60
BF16_BYTES = 2
BLOCK_TOKENS = 64
"""MLA's cache is handed out in blocks of 64 tokens."""
EXPERTS = "routed experts"
_WHOLE = Layout("tp", tp=1, pp=1, dp=1, dcp=1, dp_local=1, expert_parallel=False)


@dataclass(frozen=True)
class Part:
    """One line of the table: what takes memory on one GPU, and why that much."""

    name: str
    bytes: int
    why: str


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest GPU of the group, and the cache that is left.

    Args:
        parts: what is there before the cache.
        total: memory of the GPU in bytes.
        utilization: share of it the engine may use.
        token_bytes: cache of one token on one GPU, in bytes (already divided by DCP).
        needed_tokens: tokens one request of full length needs.
        request_bytes: cache of one request besides, in layers that do not keep every token.
    """

    parts: tuple[Part, ...]
    total: int
    utilization: float
    token_bytes: float
    needed_tokens: int
    request_bytes: int = 0

    @property
    def budget(self) -> int:
        """Bytes the engine may use on one GPU."""
        return int(self.total * self.utilization)

    @property
    def used(self) -> int:
        """Bytes taken before the cache."""
        return sum(part.bytes for part in self.parts)

    @property
    def cache(self) -> int:
        """Bytes left for the cache; negative when the weights alone do not fit."""
        return self.budget - self.used

    @property
    def tokens(self) -> int:
        """Tokens of one request that the cache of one DP rank holds, in whole blocks."""
        left = self.cache - self.request_bytes
        if not self.token_bytes:
            return self.needed_tokens if left >= 0 else 0
        return max(0, int(left / self.token_bytes / BLOCK_TOKENS) * BLOCK_TOKENS)

    def requests(self, length: int) -> int:
        """Return how many requests of a length the cache of one DP rank holds at once."""
        if not self.request_bytes:
            return self.tokens // length
        return max(0, int(self.cache / (self.request_bytes + self.token_bytes * length)))

    @property
    def fits(self) -> bool:
        """Whether weights, allowance and one request of full length find room."""
        return self.tokens >= self.needed_tokens

    def longest(self, step: int = 16384, headroom: float = 0.9) -> int:
        """Return a context length that fits: 90 % of the cache, in steps of 16 Ki tokens (1 Ki below that)."""
        room = int(self.tokens * headroom)
        return room // step * step or room // 1024 * 1024

    def table(self) -> str:
        """Return the arithmetic as text, one line a part, in GiB per GPU."""
        rows = [(part.name, part.bytes, part.why) for part in self.parts]
        rows.append(("sum", self.used, ""))
        rows.append(
            ("may be used", self.budget, f"{self.total / GIB:.2f} GiB x gpu_memory_utilization {self.utilization:g}")
        )
        verb = "holds" if self.fits else "holds only"
        holds = f"{verb} {self.tokens:,} tokens, needs {self.needed_tokens:,}"
        besides = f" after {self.request_bytes / GIB:.2f} GiB of windows and states" if self.request_bytes else ""
        rows.append(
            (
                "left for the cache",
                self.cache,
                f"{self.token_bytes:,.0f} B a token{besides}: {holds}",
            )
        )
        width = max(len(name) for name, _, _ in rows)
        lines = [f"  {name:<{width}}  {size / GIB:>8.2f} GiB  {why}".rstrip() for name, size, why in rows]
        return "\n".join(lines)


def per_gpu(
    shape: Shape,
    layout: Layout,
    gpu: Gpu,
    *,
    utilization: float,
    batched_tokens: int,
    max_model_len: int,
    cache_bytes: int,
) -> Memory:
    """Compute what one GPU must hold.

    Args:
        shape: the model.
        layout: parallel sizes.
        gpu: the product.
        utilization: share of the GPU the engine may use, 0 to 1.
        batched_tokens: tokens of one batch (`--max-num-batched-tokens`).
        max_model_len: context length in tokens.
        cache_bytes: bytes of one cache element (2 for bf16, 1 for fp8).

    The pipeline stage with the most expert layers is taken. Routed experts are divided over TP x DP ranks with
    expert parallelism as well as without (then as tensor parallel); everything else only over TP.
    """
    parts = weights_of(shape, layout)
    cache = cache_size.of(
        shape, layout, element=cache_bytes, batched_tokens=batched_tokens, max_model_len=max_model_len
    )
    activations = batched_tokens * shape.hidden_size * BF16_BYTES * HIDDEN_VECTORS_PER_TOKEN
    parts.append(
        Part(
            "allowance",
            FIXED_ALLOWANCE + activations,
            f"context, NCCL, graphs 2 GiB + activations of {batched_tokens:,} batched tokens",
        )
    )
    return Memory(
        parts=tuple(parts),
        total=gpu.memory_bytes,
        utilization=utilization,
        token_bytes=cache.token_bytes,
        needed_tokens=max_model_len,
        request_bytes=cache.request_bytes,
    )


def weights_of(shape: Shape, layout: Layout) -> list[Part]:
    """Return the weights of the fullest pipeline stage on one GPU: those on disk, and what is made of them."""
    parts = _on_disk(shape, layout)
    if shape.weight_bytes:
        parts = _scaled(parts, shape)
    up = shape.num_attention_heads * (shape.qk_nope_head_dim + shape.v_head_dim) * shape.kv_lora_rank
    if up:
        absorbed = up * _stage_layers(shape, layout) * BF16_BYTES // layout.tp
        parts.append(Part("MLA, absorbed", absorbed, f"bf16 copies of the up-projections {_ways(layout.tp)}"))
    return parts


def _stage_layers(shape: Shape, layout: Layout) -> int:
    return ceil(shape.num_hidden_layers / layout.pp)


def _on_disk(shape: Shape, layout: Layout) -> list[Part]:
    """Return what one GPU holds of the weights' files, from the model's sizes alone."""
    stage_layers = _stage_layers(shape, layout)
    moe_layers_all = shape.num_hidden_layers - shape.first_k_dense_replace if shape.n_routed_experts else 0
    moe_layers = min(stage_layers, moe_layers_all)
    dense_layers = min(stage_layers, shape.num_hidden_layers - moe_layers_all)
    expert_params = 3 * shape.hidden_size * shape.moe_intermediate_size
    ranks = layout.expert_ranks
    parts: list[Part] = []

    def add(name: str, params: float, bits: float, ways: int, why: str) -> None:
        if params:
            parts.append(Part(name, int(params * bits / 8 / ways), why))

    add(
        EXPERTS,
        moe_layers * shape.n_routed_experts * expert_params,
        shape.expert_bits,
        ranks,
        f"{moe_layers} layers x {shape.n_routed_experts} experts at {shape.expert_bits:.3g} bits / {ranks} ranks",
    )
    mlp = moe_layers * shape.n_shared_experts * expert_params
    mlp += dense_layers * 3 * shape.hidden_size * shape.intermediate_size
    add("shared experts, MLPs", mlp, shape.linear_bits, layout.tp, f"{_ways(layout.tp)}")
    sharded, replicated = _attention(shape)
    add("attention", sharded * stage_layers, shape.linear_bits, layout.tp, f"{stage_layers} layers {_ways(layout.tp)}")
    add("attention, low rank", replicated * stage_layers, shape.linear_bits, 1, "on every rank")
    router = moe_layers * shape.n_routed_experts * shape.hidden_size
    add("router", router, shape.other_bits, 1, "on every rank")
    vocabulary = shape.vocab_size * shape.hidden_size * (2 if layout.pp == 1 else 1)
    add("embedding, output head", vocabulary, shape.other_bits, layout.tp, _ways(layout.tp))
    return parts


def _scaled(parts: list[Part], shape: Shape) -> list[Part]:
    """Return parts that sum up, over the whole model, to the bytes on disk: towers, MTP layers and scales included."""
    by_sizes = _bytes_by_sizes(shape)
    return [replace(part, bytes=int(part.bytes * shape.weight_bytes / by_sizes)) for part in parts]


def weight_bytes(shape: Shape) -> int:
    """Return how much disk a model takes: as its files say, or roughly what one rank of its own would hold of it."""
    return shape.weight_bytes or _bytes_by_sizes(shape)


def experts_share(shape: Shape) -> float:
    """Return which part of a model's weights are routed experts."""
    parts = _on_disk(shape, _WHOLE)
    return sum(part.bytes for part in parts if part.name == EXPERTS) / sum(part.bytes for part in parts)


def _bytes_by_sizes(shape: Shape) -> int:
    return sum(part.bytes for part in _on_disk(shape, _WHOLE))


def _ways(tp: int) -> str:
    return f"/ TP{tp}" if tp > 1 else "on every rank"


def _attention(shape: Shape) -> tuple[int, int]:
    """Return attention parameters of one layer: divided over TP, and held whole by every rank."""
    hidden, heads = shape.hidden_size, shape.num_attention_heads
    if not shape.kv_lora_rank:
        return 2 * hidden * heads * shape.head_dim + 2 * hidden * shape.kv_heads * shape.head_dim, 0
    query_dim = shape.qk_nope_head_dim + shape.qk_rope_head_dim
    query_in = shape.q_lora_rank or hidden
    sharded = query_in * heads * query_dim
    sharded += shape.kv_lora_rank * heads * (shape.qk_nope_head_dim + shape.v_head_dim)
    sharded += heads * shape.v_head_dim * hidden
    replicated = hidden * shape.q_lora_rank + hidden * (shape.kv_lora_rank + shape.qk_rope_head_dim)
    return sharded, replicated
