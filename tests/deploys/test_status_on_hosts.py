"""`muster status` and `muster logs` against real hosts: a group that serves, one that fell, a host out of reach."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from muster.guard.state_store import BUNDLE_LIMIT, BUNDLES
from muster.sandbox import simulated_gpus
from tests import guard_answers
from tests.deploys.conftest import GROUP, GUARD_STATE, HOSTS, GuardedTestbed

pytestmark = pytest.mark.sandbox

USERS_OWN_XID = 13
"""Graphics engine exception: a program's own fault, which ends nothing."""


def test_what_a_person_sees_of_a_group_before_and_after_a_death(guarded: GuardedTestbed) -> None:
    # A group that serves.
    begin = guarded.now
    seen = guarded.muster("status")
    assert seen.returncode == 0, seen.stderr
    lines = seen.stdout.splitlines()
    assert lines[0] == f"{GROUP}  running"
    assert [line.split()[:5] for line in lines if re.match(r"node\d  ", line)] == [
        ["node0", "0", "0", "active", "answering"],
        ["node1", "1", "1", "active", "answering"],
    ]
    assert max(map(len, lines)) <= 80
    assert "weights: read in 3 s (node1)" in lines  # what the stand-in's processes say
    seen = guarded.muster("top")
    assert (seen.returncode, seen.stdout.splitlines()[0]) == (0, lines[0])
    assert re.search(r"^load: [\d,]+ tokens per second, [\d,]+ requests in flight$", seen.stdout, re.MULTILINE)
    before = json.loads(guarded.muster("status", "--format", "json").stdout)
    assert before["generation"] == guarded.status["generation"]
    assert [row["unit"] for row in before["hosts"]] == ["active (running)"] * 2
    assert [(row["load_seconds"], row["load_expected"]) for row in before["hosts"]] == [(3.0, None), (3.25, None)]

    # A death on the other host, with more failures behind it than are kept.
    old = {"version": 1, "wall": "2026-01-01T00:00:00Z", "generation": "old", "reason": "x", "processes": []}
    for number in range(BUNDLES + 3):
        name = f"{GUARD_STATE}/failures/20260101T0000{number:02}Z-old{number}.json"
        guarded.sh("node1", f"mkdir -p {GUARD_STATE}/failures; echo '{json.dumps(old)}' >{name}")
    guarded.sh("node1", f"chown -R muster: {GUARD_STATE}/failures")
    healthy = guarded.box.gpus("node1")
    guarded.box.set_gpus("node1", simulated_gpus.xid(healthy, 0, USERS_OWN_XID))
    try:
        guarded.wait(
            "the guard reads the Xid",
            lambda: "Xid" in json.dumps(guard_answers.ask(guarded.box, "node1", GROUP, "status")),
        )
    finally:
        guarded.box.set_gpus("node1", healthy)
    guarded.sh("node1", "pkill -KILL -f '^VLLM::EngineCore'")
    guarded.wait("a new generation", lambda: guarded.status.get("generation") not in (None, before["generation"]))
    guarded.wait("it serves", lambda: guarded.status.get("ready"), 90)
    after = json.loads(guarded.muster("status", "--format", "json").stdout)
    assert after["restarts"] == before["restarts"] + 1
    assert (after["failure"]["host"], after["failure"]["process"]) == ("node1", "vllm")
    text = guarded.muster("status").stdout
    assert "s ago, of this plan: node1: " in text
    assert "unexpectedly" in text.split("of this plan: node1: ")[1]

    # The same as events of both hosts, in order, and as a page.
    told = guarded.events(begin)
    kinds = [(event["host"], event["event"]) for event in told]
    assert kinds.index(("node1", "failure")) < kinds.index(("node0", "start")) < kinds.index(("node0", "ready"))
    restart = told[kinds.index(("node0", "restart"))]
    assert (restart["cause"], restart["process"], restart["generation"]) == ("node1", "vllm", before["generation"])
    assert {event["group"] for event in told} == {GROUP}
    with urllib.request.urlopen(f"http://{guarded.box.hosts[0].address}:29600/", timeout=5) as answer:
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert '<b class="phase good">running</b>' in answer.read().decode()

    # What the guards kept of it, in one file.
    seen = guarded.muster("logs", "--failure")
    assert seen.returncode == 0, seen.stderr
    assert f"node1: {after['failure']['reason']}" in seen.stdout
    (path,) = guarded.directory.glob("failure-*.json")
    (failure,) = json.loads(path.read_text())["failures"]
    assert (failure["host"], failure["generation"]) == ("node1", before["generation"])
    assert list(failure["bundles"]) == list(HOSTS)
    for host, bundle in failure["bundles"].items():
        assert bundle["digest"] == before["digest"]
        assert "ActiveState=" in bundle["unit"]
        assert "MiB" in bundle["gpu_memory"]
        (process,) = bundle["processes"]
        assert "non-default args" in process["lines"], host
    assert any("Xid" in line for line in failure["bundles"]["node1"]["kernel"])
    kept = guarded.sh("node1", f"cd {GUARD_STATE}/failures; stat -c %s *").split()
    assert len(kept) == BUNDLES
    assert max(map(int, kept)) <= BUNDLE_LIMIT

    # A host out of reach is a row, and the way back is found while one watches.
    guarded.box.cut("node1")
    try:
        here, gone = json.loads(guarded.muster("status", "--format", "json").stdout)["hosts"]
        assert (here["host"], gone["host"]) == HOSTS
        assert here["unit"]
        assert (gone["unit"], gone["restarts"]) == ("", None)
        assert gone["note"]
        assert guarded.muster("logs", "--failure", "--out", "-").returncode == 1
        refused = guarded.run("restart", "-y")
        assert refused.status != 0
        assert "node0 of 2 hosts in this run; node1 could not be reached" in refused.err
    finally:
        guarded.box.heal("node1")
    guarded.wait("it serves again", lambda: guarded.status.get("ready"), 120)
    assert guarded.sh("node0", "true") == ""
    lines = guarded.muster("logs", "--lines", "3", "--since", "1h", "--host", "node1").stdout.splitlines()
    assert 0 < len(lines) <= 3
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  node1  ", line) for line in lines), lines
