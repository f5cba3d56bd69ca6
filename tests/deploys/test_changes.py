"""A change is a transaction: one at a time, recorded before it stops anything, ended by whoever comes next."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import Any

import pytest

from muster.on_host import change_record, return_change
from muster.plan.change import PHASES, Phase
from tests.deploys.conftest import GROUP, HOSTS, GuardedTestbed, Testbed

pytestmark = pytest.mark.sandbox

LOCK = change_record.lock_path(GROUP)
RECORD = change_record.record_path(GROUP)


def phase(testbed: Testbed, host: str = "node0") -> str:
    """Return the phase that a host's lock shows; empty where nobody holds it."""
    shown = testbed.sh(host, f"flock -n -s {LOCK} true 2>/dev/null || cat {LOCK} 2>/dev/null || true")
    try:
        return str(json.loads(shown)["phase"])
    except (ValueError, KeyError):
        return ""


def record(testbed: Testbed, host: str) -> dict[str, Any]:
    """Return a host's record of a change that has not ended."""
    shown = testbed.sh(host, f"cat {RECORD} 2>/dev/null || true")
    return dict(json.loads(shown)) if shown else {}


def begin(testbed: Testbed, until: Phase, **settings: Any) -> subprocess.Popen[str]:
    """Start a changing deploy and return when it has come to a phase on every host."""
    child = testbed.start("kimi_k2_instruct", "-y", **settings)
    deadline = time.monotonic() + 90
    while any(shown not in PHASES[PHASES.index(until) :] for shown in (phase(testbed, name) for name in HOSTS)):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline, f"no phase {until}"
    return child


def kill(testbed: Testbed, child: subprocess.Popen[str]) -> dict[str, Any]:
    """Kill a deploy, wait until its locks are free, and return what the head's record says."""
    child.kill()
    child.communicate()
    testbed.wait("the locks are free", lambda: not any(phase(testbed, name) for name in HOSTS), 20)
    return record(testbed, "node0")


def leave_alone(testbed: Testbed) -> None:
    """Do what the timers of the hosts do, without their five minutes."""
    for name in HOSTS:
        testbed.sh(name, f"systemctl start '{return_change.unit(GROUP)}.service' 2>/dev/null || true")


def test_the_second_operator_is_refused_untouched_and_told_whose_change_it_is(serving: Testbed) -> None:
    seats = {"max_num_seqs": 19}
    first = begin(serving, "prepared", **seats)
    second = serving.run("kimi_k2_instruct", "-y", max_num_seqs=21)
    out, err = first.communicate(timeout=200)
    assert first.returncode == 0, out + err
    assert second.status == 2, second.text
    assert f"has been changing group {GROUP} since" in second.text
    assert "untouched" in second.text or "Nothing was touched" in second.text
    for name in HOSTS:
        assert "--max-num-seqs 19" in serving.sh(name, "tr '\\0' ' ' </proc/$(pgrep -f -o '[v]llm serve')/cmdline")
        assert record(serving, name) == {}
    assert serving.deploy("--json", **seats).results["totals"]["success"] == 0


def test_a_group_that_somebody_changes_is_not_removed(serving: Testbed) -> None:
    first = begin(serving, "prepared", max_num_seqs=20)
    removal = serving.run("remove", "-y", max_num_seqs=20)
    out, err = first.communicate(timeout=200)
    assert first.returncode == 0, out + err
    assert removal.status == 2, removal.text
    assert f"has been changing group {GROUP} since" in removal.text
    assert serving.answers()


def test_a_killed_deploy_leaves_its_record_and_the_same_command_finishes_it(guarded: GuardedTestbed) -> None:
    seats = {"max_num_seqs": 23, "supervisor": "guard"}
    assert kill(guarded, begin(guarded, "stopping", **seats))["phase"] in PHASES[1:]
    ran = guarded.deploy(**seats)
    assert "a change is unfinished: plan " in ran.text
    assert "this run finishes it" in ran.text
    assert guarded.answers()
    for name in HOSTS:
        assert record(guarded, name) == {}
        assert guarded.sh(name, f"systemctl is-active '{return_change.unit(GROUP)}.timer' || true") == "inactive"


def test_an_interrupted_deploy_ends_with_130_and_says_what_is_true(serving: Testbed) -> None:
    child = begin(serving, "stopping", max_num_seqs=29)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, out + err
    last = err.strip().splitlines()[-1]
    assert last.startswith("muster: interrupted")
    assert "unfinished: plan " in last
    serving.deploy()
    assert record(serving, "node0") == {}


def test_hosts_that_are_left_alone_start_what_is_in_place(guarded: GuardedTestbed) -> None:
    cut = kill(guarded, begin(guarded, "stopping", max_num_seqs=31, supervisor="guard"))

    def returned() -> bool:
        leave_alone(guarded)
        return all(record(guarded, name)["returned"] for name in HOSTS)

    guarded.wait("every host has started what is in place", returned, 90)
    guarded.wait("an answer", guarded.answers, 90)
    assert guarded.status["digest"] in (cut["before"], cut["after"])
    ran = guarded.deploy()
    assert "left alone, hosts have started what is in place; this run " in ran.text
    assert record(guarded, "node0") == {}
