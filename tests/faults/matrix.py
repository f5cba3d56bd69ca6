"""The fault matrix as data: each fault, how it is done, its bounds; and what the figures of a row amount to. Pure.

Bounds are seconds without model load, from the fault on; where `origin` is `heal` or `boot`, `started` counts from
the moment the fault was taken away, or the host was up again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

PASS, FAIL, NOT_RUN = "pass", "FAIL", "not run here"


@dataclass(frozen=True)
class Fault:
    """One row. `effect` names a function of `effects` (or of `scenes`, with `scene`) and its arguments."""

    key: str
    title: str
    how: str
    effect: tuple[str, ...]
    gone: float | None = None
    """All processes of the old generation are gone."""
    started: float | None = None
    """A new generation has processes on every host."""
    gone_there: float | None = None
    """The same as `gone`, on the host of the fault alone."""
    origin: str = "fault"
    load: bool = False
    """Requests to every rank without pause meanwhile."""
    hold: float = 0.0
    """Seconds that the fault stays at least, before it is taken away."""
    scene: bool = False
    real: bool = False
    """Also carried out with the real engine."""
    instead: str = ""
    """What of the fault was done another way than it happens; shown in the table."""
    essential: bool = False
    """In the tier that every change runs, not only nightly."""

    @property
    def row(self) -> str:
        """What the tables call it."""
        return self.title + (", under load" if self.load else "")


def _kill(key: str, title: str, host: str, role: str, gone: float, started: float, **more: Any) -> Fault:
    return Fault(key, title, f"SIGKILL on {host}", ("send", host, role, "KILL"), gone, started, **more)


def _stop(key: str, title: str, host: str, role: str, gone: float, started: float, **more: Any) -> Fault:
    how = f"SIGSTOP on {host}, {'under load' if more.get('load') else 'idle'}"
    return Fault(key, title, how, ("send", host, role, "STOP"), gone, started, **more)


MATRIX: tuple[Fault, ...] = (
    _kill("kill-head", "KILL the head's vLLM", "node0", "vllm", 10, 25, real=True, essential=True),
    _kill("kill-headless", "KILL a headless vLLM", "node1", "vllm", 10, 25, real=True, essential=True),
    _kill("kill-api-server", "KILL an API server", "node0", "ApiServer", 10, 25),
    _kill("kill-worker", "KILL a worker", "node1", "Worker", 20, 40, essential=True),
    _kill("kill-engine-core", "KILL an EngineCore", "node0", "EngineCore", 20, 40, real=True),
    _kill("kill-engine-core-1", "KILL a headless EngineCore", "node1", "EngineCore", 20, 40, real=True),
    _kill("kill-guard-head", "KILL the head's guard", "node0", "guard", 25, 35, real=True, essential=True),
    _kill("kill-guard", "KILL a member's guard", "node1", "guard", 25, 35, real=True),
    _stop("stop-guard-head", "STOP the head's guard", "node0", "guard", 40, 60),
    _stop("stop-guard", "STOP a member's guard", "node1", "guard", 40, 60),
    _stop("stop-core-load", "STOP an EngineCore", "node1", "EngineCore", 150, 170, load=True, real=True),
    _stop("stop-core-idle", "STOP an EngineCore", "node0", "EngineCore", 180, 200),
    _stop("stop-worker-load", "STOP a worker", "node0", "Worker", 150, 170, load=True),
    _stop("stop-worker-idle", "STOP a worker", "node1", "Worker", 180, 200),
    Fault(
        "worker-exception",
        "a worker's exception while serving",
        "SIGUSR1 to a worker on node1: it logs the exception as vLLM does and answers no more; every process stays",
        ("send", "node1", "Worker", "USR1"),
        10,
        25,
        essential=True,
    ),
    Fault(
        "worker-exception-start",
        "a worker's exception while starting",
        "the same, before the engine is up",
        ("exception_while_starting",),
        10,
        25,
        scene=True,
    ),
    Fault(
        "partition",
        "partition, both ways",
        "node1's cable pulled for at least 30 s",
        ("cut", "node1"),
        25,
        15,
        origin="heal",
        hold=30,
        essential=True,
    ),
    Fault(
        "partition-head-deaf",
        "partition, one way",
        "node0 hears nothing from node1, for at least 30 s",
        ("deafen", "node0", "node1"),
        25,
        15,
        origin="heal",
        hold=30,
    ),
    Fault(
        "partition-member-deaf",
        "partition, the other way",
        "node1 hears nothing from node0, for at least 30 s",
        ("deafen", "node1", "node0"),
        25,
        15,
        origin="heal",
        hold=30,
    ),
    Fault(
        "data-path",
        "data path only cut",
        "all TCP between the hosts dropped but the guards' port and SSH",
        ("cut_data_path",),
        180,
        20,
        origin="heal",
        hold=200,
    ),
    Fault("reboot-member", "reboot of a member", "systemctl reboot", ("reboot", "node1"), 25, 15, origin="boot"),
    Fault("reboot-head", "reboot of the head", "systemctl reboot", ("reboot", "node0"), 25, 15, origin="boot"),
    Fault(
        "power-member",
        "power off of a member",
        "cable dead, every process killed; on again after 30 s",
        ("power_off", "node1"),
        25,
        15,
        origin="boot",
        hold=30,
        instead="cable dead and all processes killed; the disk keeps what was written",
    ),
    Fault(
        "power-head",
        "power off of the head",
        "cable dead, every process killed; on again after 30 s",
        ("power_off", "node0"),
        25,
        15,
        origin="boot",
        hold=30,
    ),
    Fault(
        "oom",
        "out of memory in the unit",
        "a memory limit on the engine of node0, then a request too large for it: the kernel kills",
        ("exhaust_memory", "node0"),
        15,
        30,
        gone_there=5,
        instead="the limit is set from outside (version 1) where a host has no memory controller, as here",
    ),
    Fault(
        "oom-group",
        "the same with OOMPolicy=kill",
        "SIGKILL to everything in node1's unit at once",
        ("kill_unit", "node1"),
        15,
        30,
        gone_there=5,
        instead="no kernel did it: the whole unit killed at once, its guard too",
    ),
    Fault("disk-full", "disk full", "state and cache directories of node1 filled", ("disk_full",), scene=True),
    Fault(
        "clock",
        "clocks one hour apart",
        "libfaketime in node1's guard: a jump of one hour while it runs, and back; watched 60 s after each",
        ("clock",),
        scene=True,
        instead="the wall clock of node1's guard alone: hosts of one machine share its clock",
    ),
    Fault(
        "xid",
        "fatal Xid",
        "Xid 79 in node1's kernel log",
        ("xid",),
        30,
        None,
        scene=True,
        instead="simulated GPU and kernel log",
    ),
    Fault(
        "start-head-last",
        "all hosts start, head last",
        "head 10 s after the member",
        ("start_in_order", "node1", "node0"),
        started=10,
        origin="last start",
        scene=True,
        essential=True,
    ),
    Fault(
        "start-head-first",
        "all hosts start, head first",
        "member 10 s after the head",
        ("start_in_order", "node0", "node1"),
        started=10,
        origin="last start",
        scene=True,
    ),
    Fault(
        "start-at-once",
        "all hosts start at once",
        "both units at once",
        ("start_in_order", "node0+node1"),
        started=10,
        origin="last start",
        scene=True,
    ),
    Fault(
        "mixed-digests",
        "mixed digests",
        "another digest in node1's guard.json, both units started; watched 30 s",
        ("mixed_digests",),
        scene=True,
    ),
    Fault(
        "storm",
        "kill every 30 s, twenty times",
        "SIGKILL to node1's vLLM whenever there is one, every 30 s",
        ("storm",),
        scene=True,
    ),
    Fault(
        "weights-killed",
        "KILL a daemon that keeps weights",
        "SIGKILL to a daemon on node1 while the engine serves; all gone are the daemons",
        ("weights_killed",),
        10,
        scene=True,
    ),
    Fault(
        "weights-reboot",
        "reboot of a host that keeps weights",
        "systemctl reboot of node1; all gone are node0's daemons, the new generation is the daemons'",
        ("weights_reboot",),
        25,
        25,
        origin="boot",
        scene=True,
    ),
    Fault(
        "weights-key",
        "kept weights of another key",
        "a deploy that changes the weights' type",
        ("weights_key",),
        scene=True,
    ),
    Fault(
        "soak",
        "hours of saturating load",
        "benchmarks/guard_soak.py is the measurement of this row",
        ("elsewhere",),
        scene=True,
    ),
)


def by_key(key: str) -> Fault:
    """The row of a key. Raises KeyError."""
    return {fault.key: fault for fault in MATRIX}[key]


@dataclass
class Outcome:
    """What one row gave. Times in seconds; `started` and `answering` count from the fault's `origin`."""

    key: str
    detected: float | None = None
    gone: float | None = None
    gone_there: float | None = None
    started: float | None = None
    answering: float | None = None
    oracles: dict[str, str] = field(default_factory=dict)
    """Oracle to what broke it; empty text where it holds."""
    not_run: str = ""
    """Why the row could not be run here."""
    note: str = ""
    sampled: float | None = None
    """Longest time between two samples of the processes, in seconds."""


ORACLES = ("all new", "one generation", "no overlap", "one new life", "each rank answers")
"""Of a recovery: every process and instance changed; one generation in all live environments; no old process alive
when a new one started; no second restart on the way; a completion per DP rank afterwards."""


def misses(outcome: Outcome) -> list[str]:
    """What of a row's bounds and oracles did not hold, each with its figures."""
    fault, broken = by_key(outcome.key), []
    for name in ("gone", "gone_there", "started"):
        bound, value = getattr(fault, name), getattr(outcome, name)
        if bound is not None and value is None:
            broken.append(f"{name} was not seen")
        elif bound is not None and value > bound:
            broken.append(f"{name} after {value:.1f} s, bound {bound:g} s")
    return broken + [f"{name}: {why}" for name, why in outcome.oracles.items() if why]


def verdict(outcome: Outcome) -> str:
    """Pass, fail, or not run; a row without a single oracle has shown nothing and fails."""
    if outcome.not_run:
        return NOT_RUN
    return FAIL if misses(outcome) or not outcome.oracles else PASS


HEADER = ("fault", "detected", "all gone", "bound", "new generation", "bound", "answering", "oracles", "")


def cells(outcome: Outcome) -> tuple[str, ...]:
    """One line of the table for people."""
    fault = by_key(outcome.key)
    since = "" if fault.origin == "fault" else f"{fault.origin} "
    gone, bound = _seconds(outcome.gone), _bound(fault.gone)
    if fault.gone_there is not None:
        gone, bound = f"{_seconds(outcome.gone_there)} there, {gone}", f"{_bound(fault.gone_there)}, {bound}"
    held = [name for name, why in outcome.oracles.items() if not why]
    note = "; ".join(text for text in (fault.instead, outcome.note) if text)
    remark = outcome.not_run or "; ".join(misses(outcome)) or note
    return (
        fault.row,
        _seconds(outcome.detected),
        gone,
        bound,
        _seconds(outcome.started, since),
        _bound(fault.started, since),
        _seconds(outcome.answering, since),
        "" if outcome.not_run else f"{len(held)} of {len(outcome.oracles)}",
        f"{verdict(outcome)}{': ' if remark else ''}{remark}",
    )


def _seconds(value: float | None, since: str = "") -> str:
    if value is None:
        return ""
    return f"{since}{'+ ' if since and value >= 0 else ''}{value:.1f} s".replace("-", "- ")


def _bound(value: float | None, since: str = "") -> str:
    return "" if value is None else f"{since}{'+ ' if since else ''}{value:g} s"


def markdown(outcomes: Iterable[Outcome]) -> str:
    """The table of several rows, in the matrix's order."""
    order = {fault.key: number for number, fault in enumerate(MATRIX)}
    rows: list[Sequence[str]] = [HEADER, ["---"] * len(HEADER)]
    rows += [cells(each) for each in sorted(outcomes, key=lambda each: order[each.key])]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def to_json(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "verdict": verdict(outcome), "how": by_key(outcome.key).how}


def from_json(data: Mapping[str, Any]) -> Outcome:
    known = {each.name for each in fields(Outcome)}
    return Outcome(**{name: value for name, value in data.items() if name in known})
