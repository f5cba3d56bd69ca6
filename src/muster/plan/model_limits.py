"""What the model itself refuses, known from its recipe before a host is asked: context, heads, experts, blocks.

vLLM says the same when it starts, after the group has been stopped. Where the model's files are on the host, the
installed engine is asked as well (`on_host.parser_script`).
"""

from __future__ import annotations

from collections.abc import Mapping

from muster.errors import Refusal
from muster.plan.layout import Layout
from muster.spec.shape import Shape

LONGER = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
"""vLLM's own variable for a context beyond the model's."""


def check(
    shape: Shape | None, layout: Layout, length: int | None, environment: Mapping[str, str], context: int | None
) -> None:
    """Refuse what cannot start.

    Args:
        shape: of the model; None where it is not known: then only its context is judged.
        layout: parallel sizes.
        length: tokens of context that the flags ask for; None where they leave it open.
        environment: of the engine, besides the plan's own: the recipe's variables and the user's.
        context: longest context of the model in tokens; None where another model than the recipe's is served.

    Raises:
        Refusal: a context beyond the model's, heads or blocks that TP does not divide, experts spread where there are
            too few, a cache that DCP cannot divide.
    """
    if context and length and length > context and environment.get(LONGER) != "1":
        raise Refusal(
            f"max_model_len {length:,} is beyond the model's own {context:,} tokens",
            needed=f"at most {context:,}: vLLM does not start with more",
            fix=f"lower max_model_len, or set {LONGER}=1 in extra_env if the model was made for it",
        )
    if shape is None:
        return
    _heads(shape, layout)
    if layout.expert_parallel and not shape.n_routed_experts:
        raise Refusal(
            f"{layout.label} spreads experts, and the model has none",
            needed="a mixture of experts",
            fix="set expert_parallel to False: data parallel ranks then hold the whole model each",
        )
    if layout.expert_parallel and layout.expert_ranks > shape.n_routed_experts:
        raise Refusal(
            f"{layout.label} has {layout.expert_ranks} ranks for {shape.n_routed_experts} experts",
            needed="at least one expert on every rank",
            fix="use fewer hosts, or a strategy without expert parallel",
        )
    if shape.weight_block:
        _blocks(shape, layout)


def _heads(shape: Shape, layout: Layout) -> None:
    heads, tp = shape.num_attention_heads, layout.tp
    if heads % tp:
        raise Refusal(
            f"{heads} attention heads over TP{tp} ({layout.label})",
            needed=f"tensor parallel of a size that divides {heads}",
            fix="use another number of GPUs of each host (gpus in the inventory), or a strategy with smaller engines",
        )
    if shape.kv_lora_rank:
        return  # the latent vector is on every rank
    kv = shape.kv_heads
    if max(kv, tp) % min(kv, tp):
        raise Refusal(
            f"{kv} KV heads over TP{tp} ({layout.label})",
            needed="as many KV heads on every GPU, or each on as many GPUs",
            fix="use another number of GPUs of each host (gpus in the inventory), or a strategy with smaller engines",
        )
    copies = max(1, tp // kv)
    if layout.dcp > 1 and (layout.dcp > copies or heads // kv % layout.dcp):
        raise Refusal(
            f"decode_context_parallel_size is {layout.dcp} with TP{tp} and {kv} KV heads",
            needed=f"at most {copies}, a divisor of {heads // kv}: DCP takes the GPUs that hold copies of a KV head",
            fix="set decode_context_parallel_size to that or to 1",
        )


def _blocks(shape: Shape, layout: Layout) -> None:
    # Without EP every rank of every engine holds a slice of each expert.
    dense = not shape.n_routed_experts or shape.first_k_dense_replace
    sizes = [("intermediate_size", shape.intermediate_size, layout.tp)] if dense else []
    if shape.n_routed_experts and not layout.expert_parallel:
        sizes.append(("moe_intermediate_size", shape.moe_intermediate_size, layout.expert_ranks))
    for name, size, ways in sizes:
        share, rest = divmod(size, ways)
        if ways == 1 or not (rest or share % shape.weight_block):
            continue
        smaller = [tp for tp in range(layout.tp - 1, 0, -1) if shape.num_attention_heads % tp == 0]
        fits = [tp for tp in smaller if size % tp == 0 and size // tp % shape.weight_block == 0]
        by_tp = ways == layout.tp
        over = f"TP{ways}" if by_tp else f"{ways} ranks without expert parallel"
        ways_out = [f"use TP{fits[0]} (gpus in the inventory)"] if by_tp and fits else []
        raise Refusal(
            f"{name} {size} over {over} is {size / ways:g}, and weights are quantised in blocks of"
            f" {shape.weight_block}",
            needed=f"whole blocks on every GPU: vLLM does not load the model at {layout.label}",
            fix=" or ".join([*ways_out, "use a strategy with expert parallel or smaller engines"]),
        )
