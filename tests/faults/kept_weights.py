"""The rows of the matrix about weights that daemons keep beside the engine; the group keeps them for the row alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from muster.on_host import places
from tests.faults import effects
from tests.faults.group import HEAD, HOSTS, MEMBER, NAME, Group
from tests.faults.matrix import Fault, Outcome

UNIT = places.weights_unit(NAME)
STEADY = 10.0
"""Seconds for which an engine is watched after its daemons are lost."""


def daemons(group: Group, *hosts: str) -> dict[str, frozenset[str]]:
    """Return the process ids of each host's daemons; of all hosts where none is named."""
    found = {host: group.sh(host, "pgrep -f '^weight-cache-' || true", check=False) for host in hosts or HOSTS}
    return {host: frozenset(text.split()) for host, text in found.items()}


def _any(group: Group) -> bool:
    return any(daemons(group).values())


def _status(group: Group) -> dict[str, Any]:
    """Return what the guard of the head's daemons says of their group; empty where it does not."""
    program = f"$(sed -n 's/^ExecStart=//p' {places.unit(UNIT)} | cut -d' ' -f1-3)"
    said = group.sh(HEAD, f"{program} ctl --config {places.weights_config(NAME)} status", check=False)
    return dict((json.loads(said) if said else {}).get("group") or {})


def _kept(group: Group) -> dict[str, frozenset[str]]:
    """Wait until the group serves on kept weights; the daemons that hold them."""
    group.until_ready()
    group.wait("weights are kept", lambda: _status(group).get("ready"), 60)
    return daemons(group)


def _reloaded(group: Group, outcome: Outcome, before: dict[str, frozenset[str]]) -> None:
    """The oracles of a reload: every daemon is another, each host's were started once more, each rank answers."""
    after = _kept(group)
    same = {host: sorted(before[host] & after[host]) for host in HOSTS if before[host] & after[host]}
    outcome.oracles["all daemons new"] = f"still there: {same}" if same else ""
    restarts = _status(group).get("restarts")
    outcome.oracles["one reload"] = "" if restarts in (0, 1) else f"the daemons' guards count {restarts} restarts"
    outcome.oracles["each rank answers"] = "" if group.answers() else "a rank did not answer"


def weights_killed(group: Group, fault: Fault, outcome: Outcome) -> None:
    """One daemon is killed: all of them go, the engine serves on, and they load once that engine ends."""
    before, old = _kept(group), group.status()["generation"]
    begun = time.monotonic()
    group.sh(MEMBER, "pkill -9 -f '^weight-cache-0'")
    outcome.gone = group.wait("all daemons are gone", lambda: not _any(group), 60) - begun
    group.wait("the reason", lambda: "weights are no longer kept" in str(_status(group).get("reason")), 30)
    outcome.note = f"status: {str(_status(group)['reason'])[:160]}"
    until, second_copy, unanswered = time.monotonic() + STEADY, False, False
    while time.monotonic() < until:
        second_copy |= _any(group)
        unanswered |= not group.answers()
        time.sleep(0.3)
    outcome.oracles["no second copy"] = "daemons run beside an engine that maps the last ones'" if second_copy else ""
    kept_on = group.status().get("generation") == old and not unanswered
    outcome.oracles["the engine serves on"] = "" if kept_on else "another generation, or a rank without an answer"
    ended = time.monotonic()
    group.ctl(HEAD, "restart")
    group.wait("the old engine is gone", lambda: group.status().get("generation") not in (old, None), 60)
    outcome.answering = group.until_ready() - ended
    _reloaded(group, outcome, before)


def weights_reboot(group: Group, fault: Fault, outcome: Outcome) -> None:
    """A daemon's host is rebooted: the others do not hold theirs for it, and all load together when it is back."""
    before = _kept(group)
    begun = time.monotonic()
    up = effects.reboot(group, MEMBER)
    outcome.gone = group.wait("the others' daemons are gone", lambda: not daemons(group, HEAD)[HEAD], 85) - begun
    assert up is not None
    up()
    booted = time.monotonic()
    loading = group.wait("daemons on both hosts", lambda: all(daemons(group).values()), 85)
    outcome.started, outcome.answering = loading - booted, group.until_ready() - booted
    _reloaded(group, outcome, before)


def weights_key(group: Group, fault: Fault, outcome: Outcome) -> None:
    """A deploy changes what the weights are of: daemons and engine turn, once, and no engine maps the wrong ones."""
    before = _kept(group)
    old = group.sh(MEMBER, f"ls {places.weights_run(NAME)}")
    group.deploy(keep_weights=True, extra_args=["--dtype", "float16"])
    _reloaded(group, outcome, before)
    left = group.sh(MEMBER, f"ls {places.weights_run(NAME)}").split()
    stale = [name for name in old.split() if "." not in name and name in left]
    outcome.oracles["no socket of the former key"] = f"still there: {stale}" if stale else ""


def keeping(scene: Callable[[Group, Fault, Outcome], None]) -> Callable[[Group, Fault, Outcome], None]:
    """Return the scene on a group that keeps its weights meanwhile."""

    def kept(group: Group, fault: Fault, outcome: Outcome) -> None:
        group.deploy(keep_weights=True)
        try:
            scene(group, fault, outcome)
        finally:
            group.deploy()

    return kept


SCENES = {each.__name__: keeping(each) for each in (weights_killed, weights_reboot, weights_key)}
