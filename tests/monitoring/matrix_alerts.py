"""What somebody is told of each row of the fault matrix, on hosts named as there. Data.

A row that the group gets over by itself is watched with the patience that users have. One that lasts until somebody
acts is watched with a shorter one, and lasts beyond it: its alert has to come before the fault is taken away.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.faults.group import HEAD, MEMBER

RESTARTED = ("MusterGroupRestarted", HEAD)
NOT_READY = ("MusterGroupNotReady", HEAD)
"""Of a fault that lasts beyond the patience: from its end until the group serves, or where only a warning names it."""
ENDED = frozenset({RESTARTED, NOT_READY})
PATIENT, SHORT, SHORTEST = 300, 60, 30
"""`monitoring_patience`, in seconds: as users have it, and for faults that last.

A silence counts after 30 s whatever the patience is. With less than 60 s for the rest, a group that waits for a silent
host is told as not ready before the host is told as missing.
"""


@dataclass(frozen=True)
class Told:
    """What one row must raise.

    Args:
        must: alert and host of each that somebody is told.
        may: those that depend on what the row does first, or for how long.
        patience: `monitoring_patience` while the row runs.
        hold: seconds for which the fault lasts, where that is more than in the matrix.
    """

    must: frozenset[tuple[str, str]]
    may: frozenset[tuple[str, str]] = frozenset()
    patience: int = PATIENT
    hold: float = 0.0


def _passes(*keys: str) -> dict[str, Told]:
    return dict.fromkeys(keys, Told(frozenset({RESTARTED})))


def _quiet(*keys: str) -> dict[str, Told]:
    return dict.fromkeys(keys, Told(frozenset()))


def _missing(host: str, *keys: str) -> dict[str, Told]:
    """The generation ends long before a silent host counts as missing: that is told first."""
    alert = frozenset({("MusterHostMissing", host)})
    return dict.fromkeys(keys, Told(alert, ENDED, SHORT, hold=80))


def _lasts(key: str, alert: str, host: str = MEMBER, *, may: frozenset[tuple[str, str]] = ENDED) -> dict[str, Told]:
    return {key: Told(frozenset({(alert, host)}), may, SHORTEST)}


TOLD: dict[str, Told] = {
    **_passes("kill-head", "kill-headless", "kill-api-server", "kill-worker", "kill-engine-core"),
    **_passes("kill-engine-core-1", "kill-guard-head", "kill-guard", "stop-guard-head", "stop-guard"),
    **_passes("stop-core-load", "stop-core-idle", "stop-worker-load", "stop-worker-idle"),
    **_passes("worker-exception", "worker-exception-start", "data-path", "oom", "oom-group"),
    # A host that leaves in order is no failure.
    **_quiet("reboot-member", "reboot-head", "start-head-last", "start-head-first", "start-at-once"),
    **_missing(MEMBER, "partition", "partition-head-deaf", "partition-member-deaf", "power-member"),
    **_missing(HEAD, "power-head"),
    **_lasts("disk-full", "MusterDiskFilling"),
    **_lasts("xid", "MusterFatalXid"),
    **_lasts("mixed-digests", "MusterPlanMismatch"),
    **_lasts("clock", "MusterClockOff", may=frozenset()),
    "storm": Told(
        frozenset(
            (f"Muster{name}", HEAD)
            for name in ("GroupRestarted", "RestartLoop", "RestartBudgetNearlySpent", "GroupFailed")
        )
    ),
}
OTHER: dict[str, Told] = {
    **_lasts("gpu-gone", "MusterHostBlocked"),
    **_lasts("driver-upgraded", "MusterDriverDrift", may=frozenset()),
    **_lasts("exporter-stopped", "MusterHostUnscraped", may=frozenset()),
    **_lasts("engine-hidden", "MusterEngineUnscraped", HEAD, may=frozenset()),
}
"""Faults that are not in the matrix: `other_faults` does them."""
KEPT: dict[str, Told] = {**_passes("weights-killed"), **_quiet("weights-reboot", "weights-key")}
"""Rows of a group that keeps its weights: the daemons' guards are watched as a group of its own."""
ELSEWHERE = {
    "soak": "benchmarks/quiet_alerts.py keeps a group asked for hours",
}
"""Rows that are not injected here, and what shows them."""
