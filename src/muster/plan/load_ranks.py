"""How the ranks of a host share the work of loading weights: what `measure_loaders` repeats there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.plan.layout import Layout
from muster.plan.vllm_versions import Version, version_of
from muster.spec.shape import Shape

FILTER = "enable-ep-weight-filter"
FILTER_SINCE: Version = (0, 20, 0)


@dataclass(frozen=True)
class LoadRanks:
    """The ranks of one host, as a loader sees them.

    Args:
        ranks: of a host, one for each GPU.
        tensor_parallel: consecutive ranks of which each takes a slice of every tensor.
        together: ranks of a host that are in one world group: some loaders divide the files among those. vLLM has one
            over all DP ranks of a model with experts, and one for each DP rank of any other
            (`distributed/parallel_state.py`, `v1/engine/core.py`, 0.33).
        experts: of a layer; 0 where no rank skips any.
        expert_ranks: over how many ranks they are divided.
        filtered: whether ranks skip the experts of others before they read them (`--enable-ep-weight-filter`).
    """

    ranks: int
    tensor_parallel: int
    together: int
    experts: int = 0
    expert_ranks: int = 1
    filtered: bool = False

    @property
    def key(self) -> str:
        """What a measurement is of: another layout loads in another way."""
        sizes = (self.ranks, self.tensor_parallel, self.together, self.experts, self.expert_ranks, int(self.filtered))
        return "-".join(map(str, sizes))

    def request(self, *, node_rank: int, seconds: float) -> dict[str, Any]:
        """Return the request of `muster.on_host.measure_loaders`, but for the files.

        Args:
            node_rank: of the host.
            seconds: for each loader.
        """
        first = node_rank * self.ranks
        experts = {"count": self.experts, "ranks": self.expert_ranks, "first": first} if self.experts else None
        return {
            "ranks": self.ranks,
            "tensor_parallel": self.tensor_parallel,
            "together": self.together,
            "experts": experts,
            "filtered": self.filtered,
            "seconds": seconds,
        }


def filters(layout: Layout, flags: Mapping[str, Any], version: str) -> bool:
    """Whether ranks are to skip the experts of other ranks before they read them: each DP rank with EP its own part.

    Not with EPLB, which moves experts between ranks: vLLM would ignore it (`default_loader.py`, 0.33).

    Args:
        layout: parallel sizes.
        flags: of the engine: name without dashes -> value; what they say stands.
        version: of vLLM.
    """
    said = FILTER in flags or f"no-{FILTER}" in flags or flags.get("enable-eplb", False) is not False
    return layout.expert_parallel and layout.dp > 1 and not said and version_of(version) >= FILTER_SINCE


def of(shape: Shape | None, layout: Layout, *, filtered: bool, kept: bool = False) -> LoadRanks:
    """Return how the ranks of each host of a group load.

    Args:
        shape: of the model, where it is known.
        layout: parallel sizes.
        filtered: whether ranks skip the experts of others.
        kept: whether daemons load to keep the weights: those are one world group (`weight_cache/daemon.py`, 0.33).
    """
    experts = shape.n_routed_experts if shape is not None else 0
    divided = experts if layout.expert_parallel and layout.expert_ranks > 1 else 0
    return LoadRanks(
        ranks=layout.host_gpus,
        tensor_parallel=layout.tp,
        together=layout.host_gpus if experts or kept or layout.dp_local <= 1 else layout.host_gpus // layout.dp_local,
        experts=divided,
        expert_ranks=layout.expert_ranks if divided else 1,
        filtered=filtered and bool(divided),
    )
