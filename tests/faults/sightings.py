"""Processes as they were seen over time, and what must hold of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TICK = 0.02
"""Seconds by which a process's start may be reported early: the kernel counts it in hundredths, rounded down."""

STANDS_BY = "/standby_program.py "
"""What the title of a process holds that waits to be the next generation's engine."""

Key = tuple[int, int]
"""Process id as the machine numbers it, and its start in clock ticks since boot: together never used twice."""


@dataclass(frozen=True)
class Sighting:
    """One process of a unit: seen alive from `started` on, and for the last time at `last`."""

    host: str
    pid: int
    ticks: int
    generation: str
    """MUSTER_GENERATION of its environment; empty for the guard and its helpers."""
    instance: str
    title: str
    started: float
    """Monotonic seconds, by the kernel; of one that stood by, when it was seen with a generation first."""
    last: float
    """Monotonic seconds; it was alive then."""
    ended: float | None = None
    """Monotonic seconds of the first sample that missed it; None while it is seen."""

    @property
    def key(self) -> Key:
        return self.pid, self.ticks

    @property
    def stands_by(self) -> bool:
        """Whether it waits to be the next generation's engine."""
        return not self.generation and STANDS_BY in self.title

    @property
    def is_guard(self) -> bool:
        return not self.generation and "/guard/" in self.title and " --config " in self.title


def engines(seen: Iterable[Sighting]) -> list[Sighting]:
    """The engine's processes among them."""
    return [each for each in seen if each.generation]


def gone_at(seen: Iterable[Sighting], old: str, host: str | None = None) -> float | None:
    """When the last process of a generation was missed first, on one host or on all; None while there is one."""
    ends = [each.ended for each in engines(seen) if each.generation == old and host in (None, each.host)]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None


def started_at(seen: Iterable[Sighting], old: str, hosts: Iterable[str], after: float) -> float | None:
    """When the last of the hosts had its first process of one newer generation; None if not all of them had one."""
    first: dict[str, dict[str, float]] = {}
    for each in engines(seen):
        if each.generation != old and each.started >= after - TICK:
            by_host = first.setdefault(each.generation, {})
            by_host[each.host] = min(by_host.get(each.host, each.started), each.started)
    whole = [max(by_host.values()) for by_host in first.values() if set(by_host) >= set(hosts)]
    return min(whole, default=None)


def lives(seen: Iterable[Sighting], after: float) -> list[str]:
    """The generations that began after a time, in order."""
    first: dict[str, float] = {}
    for each in engines(seen):
        first[each.generation] = min(first.get(each.generation, each.started), each.started)
    return [name for name, at in sorted(first.items(), key=lambda item: item[1]) if at >= after - TICK]


def overlaps(seen: Iterable[Sighting]) -> list[str]:
    """Where a process of one generation was alive when one of another had begun: must be empty.

    An old process seen alive after a new one's start is proof. One that died between two samples counts as gone at
    the earlier of them here, and at the later of them in `gone_at`: neither claims what was not seen.
    """
    problems = []
    everyone = engines(seen)
    for old in everyone:
        for new in everyone:
            if new.generation != old.generation and old.started <= new.started and old.last > new.started + TICK:
                late = old.last - new.started
                problems.append(
                    f"{old.host}: {old.title[:40]} of generation {old.generation[:8]} lived {late:.2f} s into"
                    f" {new.title[:40]} of {new.generation[:8]} on {new.host}"
                )
    return problems


def kept(before: Iterable[Sighting], after: Iterable[Sighting]) -> list[str]:
    """Processes and instances that are the same in both: after a recovery, none.

    But where a process stood by that one is the engine now, told so by the same guard's process under another instance.
    """
    everyone, new = list(before), list(after)
    went_on = {each.host for each in everyone if each.stands_by}
    old = [each for each in everyone if not each.stands_by and not (each.is_guard and each.host in went_on)]
    same = {each.key for each in old} & {each.key for each in new}
    problems = [f"{each.host}: process {each.pid} {each.title[:40]}" for each in old if each.key in same]
    instances = {each.instance for each in old} & {each.instance for each in new} - {""}
    return problems + [f"instance {name}" for name in sorted(instances)]


def generations(seen: Iterable[Sighting]) -> Mapping[str, int]:
    """Generation to number of processes that carry it."""
    counted: dict[str, int] = {}
    for each in engines(seen):
        counted[each.generation] = counted.get(each.generation, 0) + 1
    return counted
