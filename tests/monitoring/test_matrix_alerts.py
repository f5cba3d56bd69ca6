"""Every row of the fault matrix, and other faults, on real hosts: a real Alertmanager tells its alert and no other.

Two things are quicker here than at a user's: Prometheus scrapes every second, and a restart is told for a minute, not
for fifteen. `matrix_alerts` says which patience a row has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.conftest import Boot
from tests.faults import kept_weights, rows
from tests.faults.group import Group
from tests.faults.matrix import MATRIX, Outcome, by_key

from . import other_faults
from .matrix_alerts import ELSEWHERE, KEPT, OTHER, PATIENT, TOLD, Told
from .monitored import MONITOR, Monitored

TOLD_FOR = 60
"""Seconds for which a restart is told here."""
LATE = 60.0
"""Seconds after a row within which its alert has come, and after that time has ended again."""
EVERY = {**TOLD, **OTHER}
HERE = {
    "clock": other_faults.clock_ahead,
    "gpu-gone": other_faults.gpu_gone,
    "driver-upgraded": other_faults.driver_upgraded,
    "exporter-stopped": other_faults.exporter_stopped,
    "engine-hidden": other_faults.engine_hidden,
}
"""Faults that are done here, until their alert comes; the other rows are carried out as the matrix does."""


class Listener:
    """What Alertmanager tells, second by second."""

    def __init__(self, there: Monitored) -> None:
        self.heard: dict[tuple[str, str], float] = {}
        """Alert and host -> monotonic time at which it was first told."""
        self._there, self._over = there, threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over.wait(1.0):
            for each in self._there.told():
                self.heard.setdefault(each, time.monotonic())

    def end(self) -> None:
        """Stop. Raises AssertionError where it stopped before: it would have heard nothing since."""
        listened = self._thread.is_alive()
        self._over.set()
        self._thread.join(30)
        assert listened, "Alertmanager could not be asked"


def with_patience(there: Monitored, seconds: int) -> None:
    """Deploy the rules with another patience, and have a restart told for less long."""
    there.patience = seconds
    there.done("monitoring")
    rules = "/etc/prometheus/muster/rules.yml"
    there.sh(MONITOR, f"sed -i 's/\\[15m\\]/[{TOLD_FOR}s]/' {rules} && systemctl reload prometheus")
    expected = f"increase(muster_restarts_total[{TOLD_FOR // 60}m])"
    there.wait("the shorter rules", lambda: expected in str(there.ask(9090, "/api/v1/rules")), 30)
    # After a reload Prometheus looks for its Alertmanager again; what it cannot tell then it tells a minute later.
    there.wait(
        "its Alertmanager", lambda: there.ask(9090, "/api/v1/alertmanagers")["data"]["activeAlertmanagers"] != [], 30
    )


def carry_out(there: Monitored, group: Group, key: str, listener: Listener) -> None:
    """Carry one row out, to the end of the group's recovery."""
    told = EVERY[key]
    if key in HERE:
        undo = HERE[key](there)
        try:
            there.wait("its alert", lambda: told.must <= set(listener.heard), told.patience + LATE)
        finally:
            undo()
        there.wait("ready", there.ready)
        return
    outcome = rows.carry_out(group, replace(by_key(key), hold=max(by_key(key).hold, told.hold)))
    assert not outcome.not_run, outcome.not_run
    assert "in time" not in outcome.oracles, outcome.oracles


@pytest.fixture(scope="module")
def monitored(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> Monitored:
    there = Monitored(sandbox("monitoring", 3), tmp_path_factory.mktemp("monitored"))
    there.bring_up()
    return there


@pytest.fixture(scope="module")
def group(monitored: Monitored) -> Iterator[Group]:
    """Return the same group, as the matrix reaches it."""
    with Group(monitored.box) as there:
        yield there


@pytest.fixture(scope="module")
def keeping(monitored: Monitored) -> Iterator[Monitored]:
    """Return the same hosts with weights that are kept, and a Prometheus that watches the daemons' guards too."""
    monitored.kept = {"keep_weights": True}
    monitored.deploy()
    with_patience(monitored, PATIENT)
    monitored.wait("every target up", lambda: len(monitored.targets()) == 4 and daemons_watched(monitored), 60)
    yield monitored
    monitored.kept = {}


def daemons_watched(there: Monitored) -> bool:
    return there.query('muster_ready{group=~".*-weights"} == 1') != []


def test_every_row_has_its_expectation() -> None:
    assert {fault.key for fault in MATRIX} == {*TOLD, *KEPT, *ELSEWHERE}
    assert set(OTHER) <= set(HERE) <= set(EVERY)


@pytest.mark.sandbox
@pytest.mark.nightly
@pytest.mark.parametrize("key", sorted(EVERY, key=lambda key: EVERY[key].patience))
def test_a_fault_raises_its_alert_and_no_other(monitored: Monitored, group: Group, key: str) -> None:
    if monitored.patience != EVERY[key].patience:
        with_patience(monitored, EVERY[key].patience)
    group.restore_service()
    told_of(monitored, EVERY[key], key, lambda listener: carry_out(monitored, group, key, listener))


@pytest.mark.sandbox
@pytest.mark.nightly
@pytest.mark.parametrize("key", KEPT)
def test_a_fault_of_kept_weights_raises_its_alert_and_no_other(keeping: Monitored, group: Group, key: str) -> None:
    def done(_: Listener) -> None:
        if key == "weights-key":
            keeping.deploy(extra_args=["--dtype", "float16"])
        else:
            outcome = Outcome(key)
            {"weights-killed": kept_weights.weights_killed, "weights-reboot": kept_weights.weights_reboot}[key](
                group, by_key(key), outcome
            )
            assert not any(outcome.oracles.values()), outcome.oracles
        keeping.wait("weights are kept", lambda: daemons_watched(keeping), 60)

    told_of(keeping, KEPT[key], key, done)


def told_of(monitored: Monitored, told: Told, key: str, fault: Callable[[Listener], None]) -> None:
    """Do something, and see that somebody is told what must be told of it, nothing else, and of its end.

    Raises:
        AssertionError: not all of it, or more.
    """
    monitored.wait("nothing told", lambda: not monitored.told(), TOLD_FOR + LATE)
    listener, begun = Listener(monitored), time.monotonic()
    try:
        fault(listener)
        monitored.wait("its alert", lambda: told.must <= set(listener.heard), LATE)
        monitored.wait("its end", lambda: not monitored.told(), TOLD_FOR + LATE)
    finally:
        listener.end()
        heard = {f"{name} {host}": round(at - begun) for (name, host), at in listener.heard.items()}
        print(f"{key}: {heard}, over after {time.monotonic() - begun:.0f} s")
    assert told.must <= set(listener.heard) <= told.must | told.may
