"""What the model itself refuses, known from its recipe before a host is asked: context, experts, quantised blocks.

vLLM says the same when it starts, after the group has been stopped. Where the model's files are on the host, the
installed engine is asked as well (`on_host.parser_script`).
"""

from __future__ import annotations

from collections.abc import Mapping

from muster.errors import Refusal
from muster.plan.topology import Layout
from muster.spec.recipe import FlagValue, Shape

LONGER = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
"""vLLM's own variable for a context beyond the model's."""


def check(
    shape: Shape, layout: Layout, flags: Mapping[str, FlagValue], environment: Mapping[str, str], context: int | None
) -> None:
    """Refuse what cannot start.

    Args:
        shape: of the model.
        layout: parallel sizes.
        flags: as the engine gets them.
        environment: the user's `extra_env`.
        context: longest context of the model in tokens; None where another model than the recipe's is served.

    Raises:
        Refusal: a context beyond the model's, experts spread where there are none, blocks that TP does not divide.
    """
    text = str(flags.get("max-model-len", ""))  # vLLM also takes 25k and auto: those it judges itself
    length = int(text) if text.isdigit() else 0
    if context and length > context and environment.get(LONGER) != "1":
        raise Refusal(
            f"max_model_len {length:,} is beyond the model's own {context:,} tokens",
            needed=f"at most {context:,}: vLLM does not start with more",
            fix=f"lower max_model_len, or set {LONGER}=1 in extra_env if the model was made for it",
        )
    if layout.expert_parallel and not shape.n_routed_experts:
        raise Refusal(
            f"{layout.label} spreads experts, and the model has none",
            needed="a mixture of experts",
            fix="set expert_parallel to False: data parallel ranks then hold the whole model each",
        )
    if shape.weight_block and layout.tp > 1:
        _blocks(shape, layout)


def _blocks(shape: Shape, layout: Layout) -> None:
    sizes = {"intermediate_size": shape.intermediate_size}
    if shape.n_routed_experts and not layout.expert_parallel:
        sizes["moe_intermediate_size"] = shape.moe_intermediate_size
    for name, size in sizes.items():
        share, rest = divmod(size, layout.tp)
        if rest or share % shape.weight_block:
            smaller = [tp for tp in range(layout.tp - 1, 0, -1) if shape.num_attention_heads % tp == 0]
            fits = [tp for tp in smaller if size % tp == 0 and size // tp % shape.weight_block == 0]
            raise Refusal(
                f"{name} {size} over TP{layout.tp} is {size / layout.tp:g}, and weights are quantised in blocks of"
                f" {shape.weight_block}",
                needed=f"whole blocks on every GPU: vLLM does not load the model at TP{layout.tp}",
                fix=f"use TP{fits[0]} (gpus in the inventory) or strategy dp-ep" if fits else "use strategy dp-ep",
            )
