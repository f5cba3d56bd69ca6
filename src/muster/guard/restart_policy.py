"""What the head's guard remembers from one life to the next: backoff, budget, holds and the last failures. Pure.

The guard ends on every abort (systemd empties the cgroup and starts a fresh one), so patience has to outlive it.
Staying alive through an abort was the other way; it was left because then the guard itself would have to prove that
its cgroup is empty, on every abort, where systemd's own stop path does it in the kernel and does it also when the
guard is the one that failed. Nothing here takes part in correctness: generations are fresh and random, the barrier
is made of live reports. A lost or unreadable memory costs patience (the group starts sooner), never safety.

It lies in the unit's RuntimeDirectory (tmpfs: a full disk cannot lose it, a reboot empties it, which is also when
monotonic times lose their meaning). Only a hold, a person's or the budget's decision, is also kept in the
StateDirectory, so that a stopped group stays stopped through a reboot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from .group_settings import Settings
from .messages import Failure, failure_from

STOPPED = "stopped"
FAILED = "failed"
KEEP = 8
"""Failures kept; only the newest keeps its log lines."""


@dataclass(frozen=True)
class Memory:
    boot: str = ""
    aborts: tuple[float, ...] = ()
    """Monotonic times of the aborts that count, within the window; oldest first."""
    streak: int = 0
    """Aborts since the group was last healthy for `healthy_after`."""
    held: str = ""
    """`stopped`, `failed` or empty."""
    running: str = ""
    """The generation that was told to run and whose end is not recorded yet."""
    restarts: int = 0
    """Aborts since boot."""
    failures: tuple[Failure, ...] = ()
    """Newest first."""


def aborted(memory: Memory, failure: Failure, settings: Settings, now: float) -> Memory:
    """One more abort: backoff grows, and beyond the budget the group is held as failed."""
    recent = (*tuple(at for at in memory.aborts if now - at < settings.budget_window), now)
    older = tuple(replace(old, lines="") for old in memory.failures[: KEEP - 1])
    return replace(
        memory,
        aborts=recent[-(settings.budget + 1) :],
        streak=memory.streak + 1,
        held=FAILED if len(recent) > settings.budget else memory.held,
        running="",
        restarts=memory.restarts + 1,
        failures=(failure, *older),
    )


def starts_after(memory: Memory, settings: Settings) -> float:
    """The monotonic time before which no child may start: 5 x 2^n s after the last abort, 300 s at most."""
    if not memory.aborts or not memory.streak:
        return float("-inf")
    # 2**10 times the base is beyond any sensible maximum; the bound keeps the power finite.
    pause = settings.backoff_base * 2.0 ** min(memory.streak - 1, 10)
    return memory.aborts[-1] + min(pause, settings.backoff_max)


def healthy(memory: Memory) -> Memory:
    """The group was ready for `healthy_after`: the next abort is a first one again."""
    return replace(memory, streak=0)


def forgiven(memory: Memory) -> Memory:
    """A person resumes: no hold, no backoff, a whole budget."""
    return replace(memory, held="", aborts=(), streak=0)


def awake(memory: Memory, boot: str, ended: Failure, settings: Settings, now: float) -> Memory:
    """The memory as a new guard finds it. A run whose end nobody recorded was ended by its guard's own death.

    `ended` is the failure to record in that case. Another boot's times mean nothing on this one's clock.
    """
    if memory.boot != boot:
        return Memory(boot=boot, held=memory.held, failures=tuple(replace(f, at=now) for f in memory.failures))
    return aborted(memory, replace(ended, generation=memory.running), settings, now) if memory.running else memory


def to_wire(memory: Memory) -> dict[str, Any]:
    return asdict(memory)


def from_wire(data: Mapping[str, Any]) -> Memory:
    """Raises ValueError, TypeError or KeyError on anything else than what `to_wire` wrote."""
    held = data["held"]
    if held not in ("", STOPPED, FAILED):
        raise ValueError(f"held is {held!r}")
    return Memory(
        boot=str(data["boot"]),
        aborts=tuple(float(at) for at in data["aborts"]),
        streak=int(data["streak"]),
        held=held,
        running=str(data["running"]),
        restarts=int(data["restarts"]),
        failures=tuple(failure_from(item) for item in data["failures"])[:KEEP],
    )
