"""Deliberate stops through the guard, on real hosts with the stand-in engine: drained, held, resumed, uncounted."""

from __future__ import annotations

import json
import threading
import urllib.request
from typing import Any

import pytest

from tests.deploys.conftest import GUARD_STATE as STATE
from tests.deploys.conftest import GUARD_UNIT as UNIT
from tests.deploys.conftest import HOSTS, GuardedTestbed

pytestmark = pytest.mark.sandbox


class Request(threading.Thread):
    """One request through one DP rank, in flight for some seconds."""

    def __init__(self, testbed: GuardedTestbed, rank: int, tokens: int = 120) -> None:
        super().__init__(daemon=True)
        body = json.dumps({"model": "kimi-k2", "prompt": "1", "max_tokens": tokens}).encode()
        headers = {"Content-Type": "application/json", "X-data-parallel-rank": str(rank)}
        url = f"http://{testbed.box.hosts[0].address}:8000/v1/completions"
        self.request = urllib.request.Request(url, body, headers)
        self.answer: dict[str, Any] = {}
        self.problem = ""
        self.start()

    def run(self) -> None:
        try:
            with urllib.request.urlopen(self.request, timeout=60) as answer:
                self.answer = json.load(answer)
        except (OSError, ValueError) as error:
            self.problem = str(error)

    def tokens(self) -> int:
        """How many tokens came back; fails with what came instead."""
        self.join(60)
        assert not self.problem
        return int(self.answer["usage"]["completion_tokens"])


def in_flight(testbed: GuardedTestbed) -> list[Request]:
    """One request through each DP rank, both begun and neither answered yet."""
    requests = [Request(testbed, rank) for rank in (0, 1)]

    def running() -> bool:
        url = f"http://{testbed.box.hosts[0].address}:8000/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(x.rpartition(" ")[2]) for x in lines if x.startswith("vllm:num_requests_running")) >= 2

    testbed.wait("two requests in flight", running)
    assert all(request.is_alive() for request in requests)
    return requests


def test_a_stop_answers_what_is_in_flight_and_holds_until_resume(guarded: GuardedTestbed) -> None:
    counted = guarded.status["restarts"]  # the testbed is shared: other tests break it
    begin = guarded.now
    requests = in_flight(guarded)
    stopped = guarded.done("stop")
    assert [request.tokens() for request in requests] == [120, 120]
    assert "requests in flight get up to 30 s" in stopped.text
    assert guarded.processes() == dict.fromkeys(HOSTS, "none")
    assert (guarded.status["phase"], guarded.status["restarts"]) == ("stopped", counted)
    assert guarded.bundles() == dict.fromkeys(HOSTS, "")
    assert guarded.done("stop").text.count("requests in flight") == 0
    for name in HOSTS:
        guarded.sh(name, f"systemctl restart {UNIT}")
    guarded.wait("the hold", lambda: guarded.status.get("phase") == "stopped")
    guarded.done("resume")
    assert (guarded.status["phase"], guarded.status["restarts"]) == ("running", counted)
    assert guarded.answers()
    told = guarded.events(begin)
    assert [(event["host"], event["event"]) for event in told if event["event"] != "start"] == [
        ("node0", "hold"),
        ("node0", "resume"),
        ("node0", "ready"),
    ]
    assert "@" in told[0]["by"]
    assert sorted(event["host"] for event in told if event["event"] == "start") == list(HOSTS)


@pytest.mark.nightly
def test_a_restart_answers_what_is_in_flight_and_costs_no_budget(guarded: GuardedTestbed) -> None:
    before = guarded.status
    requests = in_flight(guarded)
    guarded.done("restart")
    assert [request.tokens() for request in requests] == [120, 120]
    status = guarded.status
    assert status["generation"] != before["generation"]
    assert (status["phase"], status["restarts"]) == ("running", before["restarts"])
    assert status["aborts_in_window"] <= before["aborts_in_window"]
    assert guarded.bundles() == dict.fromkeys(HOSTS, "")


@pytest.mark.nightly
def test_a_changed_plan_answers_what_is_in_flight(guarded: GuardedTestbed) -> None:
    counted = guarded.status["restarts"]
    requests = in_flight(guarded)
    ran = guarded.deploy(max_num_seqs=18)
    assert "the group will be restarted" in ran.err
    assert [request.tokens() for request in requests] == [120, 120]
    assert guarded.status["restarts"] == counted
    assert guarded.bundles() == dict.fromkeys(HOSTS, "")


def fail(testbed: GuardedTestbed) -> None:
    """Put the group where a spent budget leaves it, as a reboot would find it."""
    held = {"boot": "b", "aborts": [], "streak": 0, "held": "failed", "running": "", "restarts": 7, "failures": []}
    for name in HOSTS:
        testbed.sh(name, f"systemctl stop {UNIT}")
    testbed.sh("node0", f"echo '{json.dumps(held)}' >{STATE}/held.json; chown muster: {STATE}/held.json")
    for name in HOSTS:
        testbed.sh(name, f"systemctl start {UNIT}")
    testbed.wait("failed", lambda: testbed.status.get("phase") == "failed")


def test_resume_starts_what_has_failed(guarded: GuardedTestbed) -> None:
    fail(guarded)
    assert guarded.processes() == dict.fromkeys(HOSTS, "none")
    guarded.done("resume")
    assert guarded.status["phase"] == "running"
    assert guarded.answers()


@pytest.mark.nightly
@pytest.mark.parametrize("change", [{}, {"max_num_seqs": 19}], ids=["the same plan", "another plan"])
def test_a_deploy_starts_what_has_failed_and_says_so(guarded: GuardedTestbed, change: dict[str, int]) -> None:
    fail(guarded)
    ran = guarded.deploy(**change)
    assert "the group is failed; this run resumes it" in ran.err
    assert guarded.status["phase"] == "running"
    assert guarded.deploy("--json", **change).results["totals"]["success"] == 0


@pytest.mark.nightly
def test_units_that_systemd_stopped_are_stopped_and_resumed_as_well(guarded: GuardedTestbed) -> None:
    guarded.sh("node0", f"systemctl stop {UNIT}")
    guarded.done("stop")
    for name in HOSTS:
        assert guarded.sh(name, f"systemctl is-active {UNIT} || true") == "inactive"
    guarded.done("resume")
    assert guarded.answers()
    guarded.sh("node0", f"systemctl stop {UNIT}")
    guarded.done("restart")
    assert guarded.answers()
