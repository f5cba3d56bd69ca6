"""Sizes of a strategy as a recipe writes them: numbers, or words that the hosts turn into numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _not_external(value: object) -> object:
    if value == "external":
        raise ValueError(
            "'internal' or 'hybrid': with external load balancing every DP rank has a server and a port of its own, and"
            " guards ask one endpoint on a host"
        )
    return value


LoadBalancing = Annotated[Literal["internal", "hybrid"], BeforeValidator(_not_external)]
"""Who answers for the DP ranks: the head for all (internal), or each host for its own (hybrid)."""
Executor = Literal["ray", "mp"]
"""What carries an engine across hosts: Ray, or vLLM's own `--nnodes`."""
Number = Annotated[int, Field(gt=0, le=4096)]


class Sizes(BaseModel):
    """How many ranks of each kind; `plan.layout` works them out on the hosts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tp: Number | Literal["fit", "host", "all"] = "host"
    """Tensor parallel: as many GPUs as the recipe's `fit` says, all of a host, or those of all hosts (divided over `pp`
    and `dp`)."""
    pp: Number | Literal["hosts"] = 1
    """Pipeline parallel: `hosts` puts one stage on each host."""
    dp: Number | Literal["all"] = 1
    """Data parallel: `all` starts as many engines as the GPUs hold."""
    ep: bool = False
    """Expert parallel: whole experts on each of the TP x DP ranks."""
    dcp: Number | Literal["tp"] = 1
    """Decode context parallel: a divisor of TP, or TP itself."""


OLD: Mapping[str, Sizes] = {
    "tp": Sizes(),
    "tp-dcp": Sizes(),
    "tp-pp": Sizes(pp="hosts"),
    "dp-ep": Sizes(tp=1, dp="all", ep=True),
}
"""Names that need no sizes: what they have always meant. Their engines cross hosts by Ray unless told otherwise."""
