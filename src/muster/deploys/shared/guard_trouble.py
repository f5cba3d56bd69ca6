"""What keeps a guarded group from starting, from its head's status: what is news, and when waiting is vain. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from muster.status.failures import decisive

PATIENCE = 20.0
"""Seconds that a host may be blocked before waiting is given up: a GPU's memory may still be on its way back."""
PASSES = ("In Progress",)
"""Words of blocks that end by themselves: a fabric that is still being set up."""
SHOWN_LINES = 5
LONGEST = 200
"""Characters of an engine's own last error."""
_NUMBER = re.compile(r"\d+")


class GuardTrouble:
    """The troubles of one bring-up, from one status to the next."""

    def __init__(self, began: float) -> None:
        """`began`: when the bring-up began, by the same clock."""
        self._began = began
        self._since: dict[str, tuple[str, float]] = {}
        self._newest: tuple[str, ...] | None = None

    def news(self, status: Mapping[str, Any], now: float) -> list[str]:
        """Return lines about what this status says and none before it said.

        Args:
            status: the group as the head's guard sees it; empty when it gave none.
            now: seconds, by a clock that only goes on.
        """
        if not status:
            return []
        known = self._since
        blocks = {member["host"]: text for member in status["members"] if (text := _block(member))}
        lines = [f"{host}: {text}" for host, text in blocks.items() if host not in known or known[host][0] != text]
        self._since = {host: (text, known[host][1] if host in known else now) for host, text in blocks.items()}
        failures = status.get("failures", [])
        # By what the newest one is: guards keep no more than a few, and their number then stays.
        newest = _identity(failures[0]) if failures else ()
        if newest and self._newest is not None and newest != self._newest:
            lines.append(f"{failures[0]['host']}: {failures[0]['reason']}")
            lines += [f"  {line}" for line in failures[0].get("lines", "").splitlines()[-SHOWN_LINES:]]
        self._newest = newest
        return lines

    def hopeless(self, status: Mapping[str, Any], now: float) -> str:
        """Return why waiting cannot help, with the host; empty while it may."""
        if status.get("phase") == "failed":
            return str(status.get("reason") or "the restart budget is spent")
        again = _same_twice(status.get("failures", []), now - self._began)
        if again:
            return again
        for host, (text, since) in self._since.items():
            if now - since >= PATIENCE and not any(word in text for word in PASSES):
                return f"{host}: {text}"
        return ""


def _same_twice(failures: Sequence[Mapping[str, Any]], seconds: float) -> str:
    """Return the failure by which two generations of this bring-up have ended; empty where there is none.

    Args:
        failures: newest first, with their ages.
        seconds: since the bring-up began: older failures say nothing of it.
    """
    ends: dict[str, set[str]] = {}
    for failure in failures:
        age = failure.get("age")
        if age is not None and 0 <= age < seconds:
            # Process ids and times differ from one death to the next.
            same = _NUMBER.sub("#", str(failure["reason"]))
            ends.setdefault(same, set()).add(str(failure.get("generation") or age))
            if len(ends[same]) > 1:
                newest = failures[0]
                why = decisive(newest.get("lines", ""))[:LONGEST]
                said = f": {why}" if why and why not in newest["reason"] else ""
                return f"{newest['host']}: {newest['reason']} (twice in this start){said}"
    return ""


def _identity(failure: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(failure.get(key, "")) for key in ("generation", "host", "reason"))


def _block(member: Mapping[str, Any]) -> str:
    return str(member.get("refused") or member.get("blocked") or "")
