"""One view of all groups of an inventory, from the status of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muster.edge import admission
from muster.edge.edge_plan import EdgePlan
from muster.status.group_status import GroupStatus

_AT_WORK = ("answering", "running")
"""Words of a host's engine that does its part."""


@dataclass(frozen=True)
class EdgeLoad:
    """What edges are asked for.

    Args:
        asked: model -> requests that run or wait, at all edges.
        silent: edge -> why it gave no answer.
    """

    asked: Mapping[str, int] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FleetStatus:
    """The groups of an inventory as they are now, in its order.

    Args:
        groups: of the inventory.
        edges: what clients ask the edges for.
        shortages: where a group is lost and the others do not run what is asked for, in words.
    """

    groups: Sequence[GroupStatus]
    edges: EdgeLoad = EdgeLoad()
    shortages: Sequence[str] = ()

    @property
    def whole(self) -> bool:
        """Whether every group serves with all of its hosts."""
        return all(group.whole for group in self.groups)

    @property
    def ready(self) -> int:
        """Number of groups that serve."""
        return sum(group.ready for group in self.groups)

    def as_json(self) -> dict[str, Any]:
        """Return plain data for scripts."""
        return {
            "whole": self.whole,
            "ready": self.ready,
            "asked": dict(self.edges.asked),
            "silent_edges": dict(self.edges.silent),
            "shortages": list(self.shortages),
            "groups": {group.group: {"whole": group.whole, **group.as_json()} for group in self.groups},
        }


def fleet_status(groups: Sequence[GroupStatus], plan: EdgePlan, edges: EdgeLoad) -> FleetStatus:
    """Return the status of all groups.

    Args:
        groups: of the inventory.
        plan: of the edges before them.
        edges: what those are asked for.
    """
    ready = {group.group for group in groups if group.ready}
    return FleetStatus(groups, edges, admission.shortages(plan, ready, edges.asked))


def hosts_at_work(group: GroupStatus) -> int:
    """Return how many hosts of a group do their part."""
    return sum(row.engine in _AT_WORK for row in group.hosts)


def note(group: GroupStatus) -> str:
    """Return why a group is not whole, in one line; empty where it is."""
    if group.whole:
        return ""
    if group.outside:
        return f"without {', '.join(group.outside)}"
    notes = [f"{row.host}: {row.note}" for row in group.hosts if row.note]
    return group.change or group.cause or next(iter(notes), "")
