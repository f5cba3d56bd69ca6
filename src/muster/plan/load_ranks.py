"""How the ranks of a host share the work of loading weights: what `measure_loaders` repeats there. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from muster.plan.layout import Layout
from muster.spec.shape import Shape


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

    def request(self, files: dict[str, list[str]], *, node_rank: int, seconds: float) -> dict[str, Any]:
        """Return the request of `muster.on_host.measure_loaders`.

        Args:
            files: loader -> paths.
            node_rank: of the host.
            seconds: for each loader.
        """
        first = node_rank * self.ranks
        experts = {"count": self.experts, "ranks": self.expert_ranks, "first": first} if self.experts else None
        return {
            "files": files,
            "ranks": self.ranks,
            "tensor_parallel": self.tensor_parallel,
            "together": self.together,
            "experts": experts,
            "filtered": self.filtered,
            "seconds": seconds,
        }


def of(shape: Shape | None, layout: Layout, *, filtered: bool) -> LoadRanks:
    """Return how the ranks of each host of a group load.

    Args:
        shape: of the model, where it is known.
        layout: parallel sizes.
        filtered: whether ranks skip the experts of others.
    """
    experts = shape.n_routed_experts if shape is not None else 0
    divided = experts if layout.expert_parallel and layout.expert_ranks > 1 else 0
    return LoadRanks(
        ranks=layout.host_gpus,
        tensor_parallel=layout.tp,
        together=layout.host_gpus if experts or layout.dp_local <= 1 else layout.host_gpus // layout.dp_local,
        experts=divided,
        expert_ranks=layout.expert_ranks if divided else 1,
        filtered=filtered and bool(divided),
    )
