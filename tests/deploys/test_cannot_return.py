"""A group is taken down only if it can come back; a stop holds, whatever is off or full, or it is not done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from muster.sandbox import Sandbox
from tests import guard_answers
from tests.deploys.conftest import GROUP, GUARD_STATE, GUARD_UNIT, THREE, GuardedTestbed

pytestmark = pytest.mark.sandbox

ETC = f"/etc/muster/{GROUP}"
UNIT_FILE = f"/etc/systemd/system/{GUARD_UNIT}"
FAULTS = {
    f"head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' >{ETC}/guard-key": f"the guard key ({ETC}/guard-key) is not",
    f"ln -sf /dev/null {UNIT_FILE}; systemctl daemon-reload": f"node1: {GUARD_UNIT} is masked",
    f"truncate -s 300 {ETC}/guard.json": f"node1: {ETC}/guard.json is not whole",
    f"rm {ETC}/plan.json": f"node1: {ETC}/plan.json is not there",
}
"""What is done to a host -> what is said of it."""


@pytest.fixture
def box(three: Sandbox) -> Sandbox:
    return three


@pytest.fixture
def kept(guarded: GuardedTestbed) -> Iterator[GuardedTestbed]:
    """A group whose files of node1 are put back afterwards."""
    guarded.sh("node1", f"cp -a {ETC} /root/etc; cp -a {UNIT_FILE} /root/unit")
    yield guarded
    put_back(guarded)


def joined(testbed: GuardedTestbed) -> list[str]:
    """Return what each member that has joined says of its child."""
    return [str(member["child"]) for member in testbed.status.get("members", ())]


def put_back(testbed: GuardedTestbed) -> None:
    testbed.sh(
        "node1",
        f"rm -rf {ETC} {UNIT_FILE}; cp -a /root/etc {ETC}; cp -a /root/unit {UNIT_FILE}; systemctl daemon-reload",
    )


def test_a_restart_of_what_could_not_come_back_is_refused(kept: GuardedTestbed) -> None:
    lives = {name: kept.life(name, GUARD_UNIT) for name in THREE}
    for fault, words in FAULTS.items():
        kept.sh("node1", fault)
        ran = kept.run("restart", "-y")
        put_back(kept)
        assert ran.status == 2, ran.text
        assert words in ran.err
        assert "could not start again" in ran.err
        assert "nothing was touched" in ran.err
    assert {name: kept.life(name, GUARD_UNIT) for name in THREE} == lives
    assert kept.answers()


def test_a_missing_plan_json_is_written_again_without_a_restart(kept: GuardedTestbed) -> None:
    lives = {name: kept.life(name, GUARD_UNIT) for name in THREE}
    kept.sh("node1", f"rm {ETC}/plan.json")
    kept.deploy()
    assert kept.sh("node1", f"cmp {ETC}/plan.json /root/etc/plan.json && echo same") == "same"
    assert {name: kept.life(name, GUARD_UNIT) for name in THREE} == lives


@pytest.mark.parametrize(("options", "why"), [("size=4k", "No space left"), ("ro", "Read-only file system")])
def test_a_stop_that_cannot_be_written_down_is_not_done(guarded: GuardedTestbed, options: str, why: str) -> None:
    mount = f"mount -t tmpfs -o {options},mode=700,uid=$(id -u muster),gid=$(id -g muster) full {GUARD_STATE}"
    guarded.sh("node0", f"{mount}; head -c 9999 /dev/zero 2>/dev/null >{GUARD_STATE}/fill || true")
    try:
        ran = guarded.run("stop", "-y")
    finally:
        guarded.sh("node0", f"umount {GUARD_STATE}")
    assert ran.status == 1, ran.text
    assert f"stop was not done: it could not be written down ({GUARD_STATE}/held.json: {why}" in ran.err
    assert guarded.answers()


@pytest.mark.parametrize(
    ("off", "noticed"),
    [(THREE[0], False), (THREE[1], False), pytest.param(THREE[1], True, marks=pytest.mark.nightly)],
)
def test_a_host_that_is_off_is_held_when_it_returns(guarded: GuardedTestbed, off: str, noticed: bool) -> None:
    guarded.box.kill_power(off)
    if noticed:  # the head's guard, too, is between two lives
        guarded.wait("the end of the generation", lambda: not guarded.status, 60)
    if off == THREE[0]:  # a guard between two lives, as one is that has lost its head
        guarded.sh("node1", f"systemctl stop {GUARD_UNIT}")
    ran = guarded.run("stop", "-y")
    assert ran.status == 1, ran.text
    assert f"{off} could not be reached: the " in ran.err
    assert "the group stopped when it returns" in ran.err
    guarded.boot()
    guarded.wait("the hold", lambda: guarded.status.get("phase") == "stopped")
    guarded.wait("all hosts", lambda: joined(guarded) == ["none"] * len(THREE))
    assert guarded.status["phase"] == "stopped"
    assert guarded.processes() == dict.fromkeys(THREE, "none")
    guarded.done("resume")
    assert guarded.answers()


def test_another_guard_key_and_a_mask_are_named_by_guards_drift_and_deploy(kept: GuardedTestbed) -> None:
    wrong, masked, *_ = FAULTS
    kept.sh("node1", f"{wrong}; systemctl restart {GUARD_UNIT}")

    def note() -> str:
        return str(next((each["refused"] for each in kept.status.get("members", ())[1:]), ""))

    try:
        kept.wait("the refusal", lambda: "is the guard key the same on every host?" in note())
        own = guard_answers.ask(kept.box, "node1", GROUP, "status")
        assert "is the guard key the same on every host?" in own["link_problem"]
        told = kept.muster("drift")
        assert "group.key" in told.stdout + told.stderr, told
        kept.sh("node1", masked)
        ran = kept.run("kimi_k2_instruct", "-y")
        assert ran.status != 0
        assert "group.unit" in ran.err, ran.text
        assert f"{GUARD_UNIT} is masked" in " ".join(ran.err.split()), ran.text
    finally:
        put_back(kept)
        kept.sh("node1", f"systemctl restart {GUARD_UNIT}")
    kept.wait("the group", kept.answers)
