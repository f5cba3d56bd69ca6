"""One view of all groups of an inventory, from the status of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from muster.status.group_status import GroupStatus

_AT_WORK = ("answering", "running")
"""Words of a host's engine that does its part."""


@dataclass(frozen=True)
class FleetStatus:
    """The groups of an inventory as they are now, in its order."""

    groups: Sequence[GroupStatus]

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
            "groups": {group.group: {"whole": group.whole, **group.as_json()} for group in self.groups},
        }


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
