"""The groups that one Prometheus watches: their plans, and the settings in which they agree. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muster.plan.fleet import plans_of
from muster.plan.types import Plan
from muster.spec.inventory import Fleet
from muster.spec.settings import Edge, Monitoring, Settings
from muster.spec.shared_settings import require_shared


@dataclass(frozen=True)
class Watched:
    """Groups that one Prometheus watches.

    Args:
        groups: plan and settings of each; at least one.
    """

    groups: Sequence[tuple[Plan, Settings]]

    @property
    def monitoring(self) -> Monitoring:
        """How they are watched: the same for all, the port of NVIDIA's exporter aside."""
        return self.groups[0][1].monitoring

    @property
    def edge(self) -> Edge:
        """The edge before them."""
        return self.groups[0][1].edge

    @property
    def keyed(self) -> set[str]:
        """Names of the groups whose engines ask for an API key."""
        return {plan.group for plan, _ in self.groups if plan.api_key_path}


def watched(fleets: Mapping[str, Fleet], recipe: str | None, *, edged: bool) -> Watched:
    """Return what one Prometheus watches.

    Args:
        fleets: group of the inventory -> its hosts and settings.
        recipe: of the one group; None where each names its own.
        edged: whether an edge is before them.

    Raises:
        Refusal: as `plans_of`; groups that differ in how they are watched, or in the edge before them.
    """
    settings = {group: fleet.settings for group, fleet in fleets.items()}
    require_shared(settings, "monitoring", needed="one Prometheus for all groups", own=["dcgm_port"])
    if edged:
        require_shared(settings, "edge", needed="one edge before all groups")
    plans = plans_of(fleets, recipe)
    return Watched(tuple((plan, settings[group]) for group, plan in plans.items()))
