"""A group that takes the place of its former self, on real hosts with the stand-in engine: one run, or as it was."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from muster.plan.change import PHASES, Phase
from muster.sandbox import Sandbox
from tests import guard_answers
from tests.deploys.conftest import GROUP, GUARD_UNIT, THREE, GuardedTestbed
from tests.deploys.test_changes import leave_alone, leave_in_exchange, record, wait_free

pytestmark = pytest.mark.sandbox
NEW = "renamed"
RENAMED = {"group": NEW, "former_group": GROUP}
BACK = {"group": GROUP, "former_group": NEW}


@pytest.fixture
def box(three: Sandbox) -> Sandbox:
    return three


def traces(testbed: GuardedTestbed, group: str) -> str:
    """Return what hosts have of a group: files, state, units by systemd, firewall tables."""
    places = " ".join(f"/{place}/muster/{group}" for place in ("etc", "run", "var/lib", "var/cache"))
    units = f"/etc/systemd/system/*muster-{group}.* /etc/systemd/system/*/*muster-return*@{group}.*"
    loaded = f"'muster-{group}.service' 'muster-firewall@{group}.service' 'muster-return*@{group}.*'"
    script = (
        f"ls -d {places} {units} 2>/dev/null; systemctl list-units --all --plain --no-legend {loaded};"
        f" nft list tables | grep -w 'muster-{group}$'; true"
    )
    return "\n".join(filter(None, (testbed.sh(name, script) for name in THREE)))


def digest(testbed: GuardedTestbed, group: str) -> str:
    """Return the plan that a group's guards run, by the head; empty where it does not serve."""
    told = guard_answers.group_status(testbed.box, THREE[0], group)
    return str(told["digest"]) if told.get("phase") == "running" else ""


def recorded(testbed: GuardedTestbed, group: str) -> dict[str, str]:
    """Return the phase of a group's unfinished change, by host."""
    return {name: str(shown["phase"]) for name in THREE if (shown := record(testbed, name, group))}


def wait_recorded(testbed: GuardedTestbed, child: subprocess.Popen[str], group: str, until: Phase) -> None:
    """Wait until every host has recorded a phase of a group, or a later one."""
    deadline = time.monotonic() + 90
    come = PHASES[PHASES.index(until) :]
    while any(recorded(testbed, group).get(name) not in come for name in THREE):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline, f"no phase {until} of {group}"


def cut(testbed: GuardedTestbed, child: subprocess.Popen[str], group: str, until: Phase) -> None:
    """Kill a deploy as soon as every host has recorded a phase of a group, or a later one."""
    wait_recorded(testbed, child, group, until)
    child.kill()
    child.communicate()


@contextmanager
def asking(testbed: GuardedTestbed) -> Iterator[None]:
    """Ask for answers of two seconds one after the other, so that a stop has something to wait for."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            testbed.answers(tokens=40)

    client = threading.Thread(target=ask, daemon=True)
    client.start()
    try:
        yield
    finally:
        over.set()
        client.join(30)


@pytest.fixture(autouse=True)
def first_name(guarded: GuardedTestbed) -> Iterator[None]:
    """Leave nothing of the other name to the next test, whatever failed."""
    yield
    if traces(guarded, NEW):
        guarded.clear()


def test_a_renamed_group_that_does_not_start_leaves_its_former_self_serving(guarded: GuardedTestbed) -> None:
    before, files = guarded.status["digest"], {name: guarded.files(name) for name in THREE}
    with guarded.crashing("CUDA error: out of memory", only_with="--max-num-seqs 31"):
        ran = guarded.refused(max_num_seqs=31, **RENAMED)
    assert ran.status == 1
    assert f"should this fail, group {GROUP} serves again with plan {before}" in ran.err
    last = ran.err.strip().splitlines()[-1]
    assert "CUDA error: out of memory" in last, ran.text
    assert re.search(rf"; group {GROUP} serves again with plan {before} after \d+ s without service; next: ", last), (
        last
    )
    assert digest(guarded, GROUP) == before
    assert guarded.answers()
    assert traces(guarded, NEW) == ""
    assert recorded(guarded, GROUP) == {}
    for name in THREE:
        assert guarded.sh(name, f"systemctl is-enabled {GUARD_UNIT}") == "enabled"
        own = f"/etc/muster/{GROUP}/plan.json /etc/systemd/system/{GUARD_UNIT}"
        assert [line for line in guarded.files(name).splitlines() if line.split()[0] in own] == [
            line for line in files[name].splitlines() if line.split()[0] in own
        ]
    assert guarded.deploy("--json").results["totals"]["success"] == 0


def test_the_new_name_serves_and_the_former_is_gone(guarded: GuardedTestbed) -> None:
    asked = guarded.run("kimi_k2_instruct", **RENAMED)
    assert asked.status != 0
    assert guarded.ready()
    ran = guarded.deploy(**RENAMED)
    assert f"{GROUP}, its former self, is gone from node0, node1, node2" in ran.err.strip().splitlines()[-1]
    new = digest(guarded, NEW)
    assert new
    assert guarded.answers()
    assert traces(guarded, GROUP) == ""
    assert recorded(guarded, NEW) == {}
    files = {name: guarded.files(name) for name in THREE}
    again = guarded.deploy("--json", **RENAMED)
    assert again.results["totals"]["success"] == 0
    assert "nothing to change" in again.err.strip().splitlines()[-1]
    assert again.sessions == dict.fromkeys(THREE, 2)
    assert {name: guarded.files(name) for name in THREE} == files

    # Back to the first name, cut while ranks are stopped: hosts that are left alone start the former group again.
    with asking(guarded):
        child = guarded.start("kimi_k2_instruct", "-y", supervisor="guard", **BACK)
        cut(guarded, child, NEW, "stopping")
    assert recorded(guarded, NEW) == dict.fromkeys(THREE, "stopping")
    wait_free(guarded, GROUP, NEW)
    leave_alone(guarded, GROUP, NEW)
    guarded.wait("the former group", lambda: digest(guarded, NEW) == new and guarded.answers(), 60)
    assert digest(guarded, GROUP) == ""

    # Cut again, with the new files in place: nothing starts the former group, and the same command finishes it.
    child = guarded.start("kimi_k2_instruct", "-y", supervisor="guard", **BACK)
    cut(guarded, child, GROUP, "committed")
    assert recorded(guarded, NEW) == dict.fromkeys(THREE, "committing")
    for name in THREE:
        assert guarded.sh(name, f"systemctl is-enabled muster-{NEW}.service || true") == "disabled"
        assert guarded.sh(name, f"systemctl is-active muster-{NEW}.service || true") == "inactive"
    assert "a change is unfinished" in guarded.muster("status").stdout
    done = guarded.deploy(**BACK)
    assert "a change is unfinished: removal of plan " in done.err
    assert digest(guarded, GROUP)
    assert guarded.answers()
    assert traces(guarded, NEW) == ""
    assert guarded.deploy("--json").results["totals"]["success"] == 0


@pytest.mark.nightly
def test_a_failed_name_that_is_kept_for_a_look_is_left_by_the_command_that_is_named(guarded: GuardedTestbed) -> None:
    before = digest(guarded, GROUP)
    with guarded.crashing("CUDA error: out of memory", only_with="--max-num-seqs 31"):
        ran = guarded.refused("--data", "keep_failed=true", max_num_seqs=31, **RENAMED)
    last = ran.err.strip().splitlines()[-1]
    assert f"it was left as it is: keep_failed is set; group {GROUP} is stopped, its files are in place" in last
    assert f"--data group={GROUP} --data former_group={NEW} to have {GROUP} back" in last
    assert guarded.sh("node0", f"systemctl is-enabled {GUARD_UNIT} || true") == "disabled"
    assert not guarded.ready()
    guarded.deploy(**BACK)
    assert digest(guarded, GROUP) == before
    assert guarded.sh("node0", f"systemctl is-enabled {GUARD_UNIT}") == "enabled"
    assert traces(guarded, NEW) == ""
    assert recorded(guarded, GROUP) == {}


@pytest.mark.nightly
def test_plain_units_are_renamed_and_come_back_too(guarded: GuardedTestbed) -> None:
    plain = {"supervisor": "systemd"}
    guarded.deploy(**plain)
    with guarded.crashing("CUDA error: out of memory", only_with="--max-num-seqs 31"):
        ran = guarded.refused(max_num_seqs=31, **RENAMED, **plain)
    assert ran.status == 1
    assert f"; group {GROUP} serves again with plan " in ran.err.strip().splitlines()[-1]
    assert guarded.answers()
    assert traces(guarded, NEW) == ""
    guarded.deploy(**RENAMED, **plain)
    assert guarded.answers()
    assert traces(guarded, GROUP) == ""
    assert guarded.deploy("--json", **RENAMED, **plain).results["totals"]["success"] == 0


@pytest.mark.nightly
def test_a_member_that_goes_off_in_the_middle_of_a_rename_costs_no_group(guarded: GuardedTestbed) -> None:
    before = digest(guarded, GROUP)
    with asking(guarded):
        child = guarded.start("kimi_k2_instruct", "-y", supervisor="guard", **RENAMED)
        wait_recorded(guarded, child, GROUP, "stopping")
        guarded.box.kill_power("node1")
        out, err = child.communicate(timeout=280)
    assert child.returncode == 1, out + err
    guarded.boot()
    told = json.loads(guarded.muster("status", "--format", "json").stdout)["change"]

    def former_serves() -> bool:
        leave_alone(guarded, GROUP, NEW)
        return digest(guarded, GROUP) == before and guarded.answers()

    if told and recorded(guarded, GROUP).get("node0") != "stopping":
        assert told.startswith("a change is unfinished: ")  # where no host may start anything, a person is told
    else:
        guarded.wait("the former group", former_serves, 90)
    print(f"left: {recorded(guarded, GROUP)}, {recorded(guarded, NEW)}; said: {err.strip().splitlines()[-1]}")
    guarded.deploy(**RENAMED)
    assert digest(guarded, NEW)
    assert guarded.answers()
    assert traces(guarded, GROUP) == ""
    assert recorded(guarded, NEW) == {}


@pytest.mark.nightly
def test_a_rename_that_is_cut_while_files_are_exchanged_and_again_starts_one_group(guarded: GuardedTestbed) -> None:
    with asking(guarded):
        child = guarded.start("kimi_k2_instruct", "-y", supervisor="guard", **RENAMED)
        cut(guarded, child, NEW, "stopping")
    for name in THREE:
        guarded.sh(name, f"systemctl stop {GUARD_UNIT} 'muster-return@*.timer'; systemctl disable -q {GUARD_UNIT}")
        guarded.sh(name, f"rm -f /etc/muster/{GROUP}/return.*")
    leave_in_exchange(guarded)
    leave_in_exchange(guarded, *THREE, group=NEW)
    guarded.sh("node1", f"cd /etc/muster/{NEW}; mv .guard.json.muster-new guard.json")
    alone = guarded.run("kimi_k2_instruct", "-y")
    assert alone.status == 2, alone.text
    assert f"group {NEW} on this host has GPU 0" in alone.err
    first = record(guarded, "node0", GROUP)["id"]
    child = guarded.start("kimi_k2_instruct", "-y", supervisor="guard", **RENAMED)
    guarded.wait("the second run", lambda: record(guarded, "node0", GROUP).get("id") != first, 90)
    child.kill()
    child.communicate()
    wait_free(guarded, GROUP, NEW)

    def new_serves() -> bool:
        leave_alone(guarded, GROUP, NEW)
        return bool(digest(guarded, NEW)) and guarded.answers()

    guarded.wait("the new group", new_serves, 90)
    for name in THREE:
        assert guarded.sh(name, f"systemctl is-active {GUARD_UNIT} || true") == "inactive"
    guarded.deploy(**RENAMED)
    assert traces(guarded, GROUP) == ""
