"""When the group may start again: backoff, budget, holds and the last failures, kept from one guard to the next. Pure.

The guard exits on every abort (systemd empties the cgroup and starts a fresh one), so the record must outlive it. The
alternative, staying alive through an abort, was rejected: the guard would have to prove on every abort that its cgroup
is empty, where systemd's stop path does so in the kernel, even when the guard itself is what failed. Correctness never
depends on the record: generations are fresh and random, and the barrier consists of live reports. A lost or unreadable
record makes the group start sooner, never unsafely.

The record is kept in the unit's RuntimeDirectory: tmpfs, so a full disk cannot lose it, and a reboot empties it, which
is also when monotonic times lose their meaning. Only a hold (by an operator or by the budget) is also kept on disk, so
that a stopped group stays stopped through a reboot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from .group_settings import Settings
from .messages import Failure, failure_from

STOPPED = "stopped"
FAILED = "failed"
KEEP_ABORTS = 1000
"""Aborts read back at most: a budget is far below."""
KEEP = 8
"""Failures kept; only the newest keeps its log lines."""


@dataclass(frozen=True)
class RestartRecord:
    boot: str = ""
    aborts: tuple[float, ...] = ()
    """Monotonic times of the aborts that count, within the window; oldest first."""
    streak: int = 0
    """Aborts since the group was last healthy for `healthy_after`."""
    held: str = ""
    """`stopped`, `failed` or empty."""
    held_by: str = ""
    """Who stopped the group, `user@machine`; empty if unknown."""
    held_at: float = 0.0
    """When, in seconds since 1970; 0 if unknown."""
    running: str = ""
    """The generation that was started and whose end is not recorded yet."""
    loading: str = ""
    """The loader that was chosen for it, until it is ready."""
    unfit: tuple[str, ...] = ()
    """Loaders with which a start failed: not taken again before an operator resumes the group."""
    restarts: int = 0
    """Aborts since boot."""
    failures: tuple[Failure, ...] = ()
    """Newest first."""


def begun(record: RestartRecord, generation: str, loader: str) -> RestartRecord:
    """The record once a generation is told to start, with a loader if one was chosen."""
    return replace(record, running=generation, loading=loader)


def after_abort(record: RestartRecord, failure: Failure, settings: Settings, now: float) -> RestartRecord:
    """The record after one more abort: backoff grows, and beyond the budget the group is held as failed.

    Before the group was ready the loader may be why, whatever the failure says: the next start is without it.
    """
    recent = (*tuple(at for at in record.aborts if now - at < settings.budget_window), now)
    older = tuple(replace(old, lines="") for old in record.failures[: KEEP - 1])
    return replace(
        record,
        aborts=recent[-(settings.budget + 1) :],
        streak=record.streak + 1,
        held=FAILED if len(recent) > settings.budget else record.held,
        running="",
        loading="",
        unfit=(*record.unfit, record.loading) if record.loading else record.unfit,
        restarts=record.restarts + 1,
        failures=(failure, *older),
    )


def starts_after(record: RestartRecord, settings: Settings) -> float:
    """The monotonic time before which no child may start.

    A first failure starts again at once: it says nothing about the next start. Those that follow wait 5 x 2^n s, 300 s
    at most.
    """
    if not record.aborts or record.streak < 2:
        return float("-inf")
    # 2**10 times the base is beyond any sensible maximum; the bound keeps the power finite.
    pause = settings.backoff_base * 2.0 ** min(record.streak - 2, 10)
    return record.aborts[-1] + min(pause, settings.backoff_max)


def stopped(record: RestartRecord, by: str, at: float) -> RestartRecord:
    """The record after an operator's stop. A stop of a stopped group keeps who stopped it first."""
    if record.held == STOPPED:
        return record
    return replace(record, held=STOPPED, held_by=by, held_at=at)


def after_healthy_run(record: RestartRecord) -> RestartRecord:
    """The record once the group was ready for `healthy_after`: the next abort is a first one again."""
    return replace(record, streak=0)


def lift_hold(record: RestartRecord) -> RestartRecord:
    """The record after an operator's resume: no hold, no backoff, a full budget, every loader."""
    return replace(record, held="", held_by="", held_at=0.0, aborts=(), streak=0, unfit=())


def restore(record: RestartRecord, boot: str, ended: Failure, settings: Settings, now: float) -> RestartRecord:
    """The record as a new guard takes it over. A run without a recorded end was ended by its guard's own death.

    `ended` is the failure to record in that case. Times of another boot mean nothing on this boot's clock.
    """
    if record.boot != boot:
        failures = tuple(replace(f, at=now) for f in record.failures)
        return RestartRecord(
            boot=boot, held=record.held, held_by=record.held_by, held_at=record.held_at, failures=failures
        )
    return after_abort(record, replace(ended, generation=record.running), settings, now) if record.running else record


def to_wire(record: RestartRecord) -> dict[str, Any]:
    return asdict(record)


def from_wire(data: Mapping[str, Any]) -> RestartRecord:
    """Raises ValueError on anything but what `to_wire` wrote: the engine's user can write the file too."""
    try:
        held, aborts, failures = data["held"], data["aborts"], data["failures"]
        unfit = data.get("unfit", ())  # as `loading`: a guard of an earlier version wrote none
        if held not in ("", STOPPED, FAILED):
            raise ValueError(f"held is {held!r}")
        if not all(isinstance(each, (list, tuple)) for each in (aborts, failures, unfit)):
            raise ValueError("aborts, failures or unfit is no list")
        if not all(type(at) in (int, float) and abs(at) < 1e12 for at in aborts):
            raise ValueError("aborts is out of bounds")
        return RestartRecord(
            boot=_text(data["boot"]),
            aborts=tuple(float(at) for at in aborts[-KEEP_ABORTS:]),
            streak=_count(data["streak"]),
            held=held,
            # A guard of an earlier version wrote neither.
            held_by=_text(data.get("held_by", "")),
            held_at=_seconds(data.get("held_at", 0.0)),
            running=_text(data["running"]),
            loading=_text(data.get("loading", "")),
            unfit=tuple(_text(loader) for loader in unfit[:KEEP]),
            restarts=_count(data["restarts"]),
            failures=tuple(failure_from({"digest": "", **item}) for item in failures[:KEEP]),
        )
    except (TypeError, KeyError) as error:
        raise ValueError(f"no restart record: {error!r}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 256:
        raise ValueError("a text is out of bounds")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e12:
        raise ValueError("a time is out of bounds")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError("a number is out of bounds")
    return value
