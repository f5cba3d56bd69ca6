"""What hosts keep of verified plans, on real hosts with the stand-in engine: history, rollback, and the way back."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from muster.sandbox import Sandbox
from tests.deploys.conftest import GROUP, GUARD_UNIT, THREE, GuardedTestbed

pytestmark = pytest.mark.sandbox
UNIT_FILE = f"/etc/systemd/system/{GUARD_UNIT}"
KEPT = f"/etc/muster/{GROUP}/kept"


@pytest.fixture
def box(three: Sandbox) -> Sandbox:
    return three


def history(testbed: GuardedTestbed) -> list[dict[str, Any]]:
    """The plans that the hosts keep, newest first."""
    ran = testbed.muster("history", "--format", "json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    plans: list[dict[str, Any]] = json.loads(ran.stdout)["plans"]
    return plans


def test_every_host_keeps_what_was_verified_and_a_second_run_keeps_nothing(guarded: GuardedTestbed) -> None:
    guarded.deploy(max_num_seqs=17)
    newest, before, *_ = history(guarded)
    assert newest["digest"] == guarded.status["digest"]
    assert newest["on"] == list(THREE)
    assert newest["number"] == before["number"] + 1
    assert 0 < newest["seconds"]["start"] < newest["without_service"] < 600
    table = guarded.muster("history")
    assert [line.split()[0] for line in table.stdout.splitlines()[1:3]] == [newest["digest"], before["digest"]]
    for name in THREE:
        assert guarded.sh(name, f"stat -c '%a %U' {KEPT} {KEPT}/{newest['digest']}.json") == "700 root\n600 root"
        assert not guarded.sh(name, f"grep -l -F -f /etc/muster/{GROUP}/guard-key -r {KEPT} || true")
    assert guarded.deploy("--json", max_num_seqs=17).results["totals"]["success"] == 0


@pytest.mark.nightly
def test_a_copy_that_is_gone_is_named_and_made_again(guarded: GuardedTestbed) -> None:
    digest = guarded.status["digest"]
    guarded.sh("node1", f"rm {KEPT}/{digest}.json")
    assert history(guarded)[0]["on"] == ["node0", "node2"]
    assert f"node1: no copy of plan {digest}" in guarded.muster("history").stdout
    assert guarded.deploy("--json").results["totals"]["success"] == 1
    assert history(guarded)[0]["on"] == list(THREE)


class Client(threading.Thread):
    """Asks for one completion after the other while `/ready` says 200, as a load balancer does."""

    def __init__(self, testbed: GuardedTestbed) -> None:
        super().__init__(daemon=True)
        self.testbed, self.over, self.answered, self.lost = testbed, threading.Event(), 0, list[str]()
        self.start()

    def run(self) -> None:
        while not self.over.is_set():
            if not self.testbed.ready():
                self.over.wait(0.05)
            elif self.testbed.answers():
                self.answered += 1
            else:
                self.lost.append(time.strftime("%T"))

    def end(self) -> None:
        self.over.set()
        self.join(30)


@pytest.fixture
def client(guarded: GuardedTestbed) -> Iterator[Client]:
    there = Client(guarded)
    yield there
    there.end()
    assert there.answered
    assert there.lost == []


@pytest.fixture
def crash(guarded: GuardedTestbed) -> Iterator[None]:
    """Let the engine end while it starts, with a plan of 31 sequences at once."""
    with guarded.crashing("CUDA error: out of memory", only_with="--max-num-seqs 31"):
        yield


@pytest.mark.usefixtures("crash")
def test_a_change_that_fails_at_start_goes_back_by_itself(guarded: GuardedTestbed, client: Client) -> None:
    before = guarded.status["digest"]
    files = {name: guarded.sh(name, f"cat {UNIT_FILE} /etc/muster/{GROUP}/guard.json") for name in THREE}
    ran = guarded.refused(max_num_seqs=31)
    assert f"should this fail, the group goes back to plan {before}" in ran.err
    assert "without service for up to " in ran.err
    last = ran.err.strip().splitlines()[-1]
    assert "CUDA error: out of memory" in last
    assert re.search(rf"; plan {before} serves again after \d+ s without service; next: muster status", last), last
    assert (guarded.status["digest"], guarded.status["phase"]) == (before, "running")
    assert {name: guarded.sh(name, f"cat {UNIT_FILE} /etc/muster/{GROUP}/guard.json") for name in THREE} == files
    assert history(guarded)[0]["digest"] == before
    guarded.wait("an answer through /ready", lambda: client.answered and guarded.ready())
    assert guarded.deploy("--json").results["totals"]["success"] == 0


@pytest.mark.usefixtures("crash")
def test_a_failed_plan_is_left_for_a_look_and_rolled_back_by_hand(guarded: GuardedTestbed, client: Client) -> None:
    before = guarded.status["digest"]
    ran = guarded.refused("--data", "keep_failed=true", max_num_seqs=31)
    assert "; it was left as it is: keep_failed is set; next:" in ran.err.strip().splitlines()[-1]
    assert guarded.sh("node0", f"grep -c -e '--max-num-seqs 31' {UNIT_FILE}") == "1"
    assert not guarded.ready()
    back = guarded.done("rollback")
    assert f"goes back to plan {before}" in back.err
    assert (guarded.status["digest"], guarded.status["phase"]) == (before, "running")
    assert client.answered


@pytest.mark.nightly
def test_a_rollback_over_three_plans(guarded: GuardedTestbed, client: Client) -> None:
    digests = [guarded.status["digest"]]
    for count in (21, 22):
        guarded.deploy(max_num_seqs=count)
        digests.append(guarded.status["digest"])
    assert [plan["digest"] for plan in history(guarded)][:3] == digests[::-1]
    changes = guarded.muster("diff", digests[2][:9], digests[1][:9])
    assert changes.returncode == 1
    assert "-max_num_seqs = 22\n+max_num_seqs = 21\n" in changes.stdout
    assert "---max-num-seqs 22\n+--max-num-seqs 21\n" in changes.stdout
    same = guarded.muster("diff", digests[1][:9], digests[1][:9])
    assert (same.returncode, same.stdout.splitlines()[1:]) == (
        0,
        ["nothing differs: settings, command lines, secrets and files are the same"],
    )
    engines = guarded.sh("node0", "find /opt -newer /etc/hostname -type d | wc -l")
    starts = guarded.starts("node0", GUARD_UNIT)
    guarded.done("rollback")
    assert guarded.status["digest"] == digests[1]
    assert guarded.starts("node0", GUARD_UNIT) == starts + 1
    asked = guarded.muster("rollback", digests[0][:9])
    assert asked.returncode == 2
    assert "requests in flight get up to 30 s, then nothing answers until it is ready again" in asked.stderr
    with (guarded.directory / "inventory.py").open("a") as inventory:
        inventory.write("leaving = ['@local']\n")  # takes no part
    back = guarded.muster("rollback", digests[0][:9], "-y")
    assert back.returncode == 0, back.stdout + back.stderr
    assert f"serves plan {digests[0]} again" in back.stderr.splitlines()[-1]
    assert guarded.status["digest"] == digests[0]
    assert [plan["digest"] for plan in history(guarded)][:3] == [digests[0], digests[1], digests[2]]
    assert guarded.sh("node0", "find /opt -newer /etc/hostname -type d | wc -l") == engines
    assert client.answered


@pytest.mark.nightly
def test_a_host_that_lost_its_copy_is_named_before_anything_stops(guarded: GuardedTestbed, client: Client) -> None:
    guarded.deploy(max_num_seqs=23)
    generation, before = guarded.status["generation"], history(guarded)[1]["digest"]
    guarded.sh("node1", f"rm {KEPT}/{before}.json")
    ran = guarded.run("rollback", "-y", "--data", f"_plan={before}")
    assert ran.status == 2, ran.text
    assert f"node1: no copy of plan {before}" in ran.err
    assert guarded.status["generation"] == generation
    assert client.answered
