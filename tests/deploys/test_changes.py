"""A change is a transaction: one at a time, recorded before it stops anything, ended by whoever comes next."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from muster.on_host import change_record, return_change
from muster.plan.change import PHASES, Phase
from muster.sandbox import Sandbox
from tests.deploys.conftest import GROUP, INVENTORY, THREE, GuardedTestbed, Testbed

pytestmark = pytest.mark.sandbox

REVERSED = INVENTORY.replace("_hosts({name!r})", "_hosts({name!r})[::-1]")


@pytest.fixture
def box(three: Sandbox) -> Sandbox:
    return three


def phase(testbed: Testbed, host: str, group: str = GROUP) -> str:
    """Return the phase that a host's lock shows; empty where nobody holds it."""
    lock = change_record.lock_path(group)
    shown = testbed.sh(host, f"test ! -e {lock} || {{ flock -n -s {lock} true || cat {lock} || true; }} 2>/dev/null")
    try:
        return str(json.loads(shown)["phase"])
    except (ValueError, KeyError):
        return ""


def record(testbed: Testbed, host: str, group: str = GROUP) -> dict[str, Any]:
    """Return a host's record of a change that has not ended."""
    shown = testbed.sh(host, f"cat {change_record.record_path(group)} 2>/dev/null || true")
    return dict(json.loads(shown)) if shown else {}


def begin(testbed: Testbed, until: Phase, **settings: Any) -> subprocess.Popen[str]:
    """Start a changing deploy and return when it has come to a phase on every host."""
    child = testbed.start("kimi_k2_instruct", "-y", **settings)
    deadline = time.monotonic() + 90
    while any(shown not in PHASES[PHASES.index(until) :] for shown in (phase(testbed, name) for name in testbed.hosts)):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline, f"no phase {until}"
    return child


def kill(testbed: Testbed, child: subprocess.Popen[str]) -> dict[str, Any]:
    """Kill a deploy, wait until its locks are free, and return what the head's record says."""
    child.kill()
    child.communicate()
    wait_free(testbed, GROUP)
    return record(testbed, "node0")


def wait_free(testbed: Testbed, *groups: str) -> None:
    """Wait until nobody holds a lock of these groups."""
    locks = [(name, group) for name in testbed.hosts for group in groups]
    testbed.wait("the locks are free", lambda: not any(phase(testbed, *lock) for lock in locks), 20)


def leave_in_exchange(testbed: Testbed, *begun: str, group: str = GROUP) -> None:
    """Have records say what a cut in the exchange of files leaves, too short an instant to be met.

    Args:
        testbed: whose hosts have a record each.
        begun: the hosts that have begun theirs.
        group: whose records.
    """
    for name in testbed.hosts:
        exchanging = "yes" if name in begun else ""
        shown = json.dumps({**record(testbed, name, group), "phase": "committing", "exchanging": exchanging})
        testbed.sh(name, f"echo '{shown}' >{change_record.record_path(group)}")


def leave_alone(testbed: Testbed, *groups: str) -> None:
    """Do what the timers of the hosts do, without their five minutes."""
    for name in testbed.hosts:
        for group in groups or (GROUP,):
            testbed.sh(name, f"systemctl start '{return_change.unit(group)}.service' 2>/dev/null || true")


def wait_alone(testbed: GuardedTestbed, digest: str = "") -> None:
    """Wait until a group whose change was cut serves by itself, with this plan where one is named."""

    def alone() -> bool:
        leave_alone(testbed)
        return testbed.answers() and (not digest or testbed.status.get("digest") == digest)

    try:
        testbed.wait("the group comes back by itself", alone, 120)
    except AssertionError as error:
        look = f"cat {change_record.record_path(GROUP)}; systemctl --no-legend list-units --all 'muster*'; "
        look += "journalctl -b --no-pager -u 'muster*' -n 60"
        said = [f"{name}: {testbed.sh(name, look + ' || true')}" for name in testbed.hosts]
        raise AssertionError("\n".join([f"{error}; wanted {digest}", str(testbed.status), *said])) from None


@contextmanager
def changing(testbed: Testbed, **settings: Any) -> Iterator[None]:
    """Have another run hold the group's lock meanwhile, which then goes on and succeeds."""
    first = begin(testbed, "prepared", **settings)
    first.send_signal(signal.SIGSTOP)  # on a busy machine it might end before its rival has begun
    try:
        yield
    finally:
        first.send_signal(signal.SIGCONT)
        out, err = first.communicate(timeout=200)
    assert first.returncode == 0, out + err


def test_the_second_operator_is_refused_untouched_and_told_whose_change_it_is(serving: Testbed) -> None:
    seats = {"max_num_seqs": 19}
    with changing(serving, **seats):
        second = serving.run("kimi_k2_instruct", "-y", max_num_seqs=21)
    assert second.status == 2, second.text
    assert f"has been changing group {GROUP} since" in second.text
    assert "untouched" in second.text or "Nothing was touched" in second.text
    for name in THREE:
        assert "--max-num-seqs 19" in serving.command_line(name)
        assert record(serving, name) == {}
    assert serving.deploy("--json", **seats).results["totals"]["success"] == 0


def test_a_group_that_somebody_changes_is_not_removed(serving: Testbed) -> None:
    with changing(serving, max_num_seqs=20):
        removal = serving.run("remove", "-y", max_num_seqs=20)
    assert removal.status == 2, removal.text
    assert f"has been changing group {GROUP} since" in removal.text
    assert serving.answers()


def test_a_second_group_on_the_same_ports_and_gpus(untouched: Testbed) -> None:
    ran = untouched.refused(group="second")
    assert f"group {GROUP} on this host has GPU 0" in ran.err
    assert f"group {GROUP} on this host uses ports 8000, 29550" in ran.err
    assert "ports of its own for group second" in ran.err


def test_a_killed_deploy_leaves_its_record_and_the_same_command_finishes_it(guarded: GuardedTestbed) -> None:
    seats = {"max_num_seqs": 23, "supervisor": "guard"}
    assert kill(guarded, begin(guarded, "stopping", **seats))["phase"] in PHASES[1:]
    ran = guarded.deploy(**seats)
    assert "a change is unfinished: plan " in ran.text
    assert "this run finishes it" in ran.text
    assert guarded.answers()
    for name in THREE:
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
        return all(record(guarded, name)["returned"] for name in THREE)

    guarded.wait("every host has started what is in place", returned, 90)
    guarded.wait("an answer", guarded.answers, 90)
    assert guarded.status["digest"] in (cut["before"], cut["after"])
    ran = guarded.deploy()
    assert "left alone, hosts have started what is in place; this run " in ran.text
    assert record(guarded, "node0") == {}


def test_a_member_that_reboots_while_its_files_are_exchanged_comes_back_with_the_new_plan(
    guarded: GuardedTestbed,
) -> None:
    cut = kill(guarded, begin(guarded, "stopping", max_num_seqs=33, supervisor="guard"))
    assert cut["phase"] == "stopping"
    leave_in_exchange(guarded, "node1")
    guarded.sh("node1", f"cd /etc/muster/{GROUP}; mv .guard.json.muster-new guard.json")
    guarded.box.kill_power("node1")
    guarded.box.start("node1")
    timer = f"systemctl is-active '{return_change.unit(GROUP)}.timer' || true"
    guarded.wait("the timer is back", lambda: guarded.sh("node1", timer) == "active", 60)
    wait_alone(guarded, cut["after"])
    for name in THREE:
        assert guarded.sh(name, f"ls -A /etc/muster/{GROUP} | grep muster-new || true") == ""
    ran = guarded.deploy(max_num_seqs=33)
    assert "this run finishes it" in ran.text
    assert guarded.deploy("--json", max_num_seqs=33).results["totals"]["success"] == 0
    for name in THREE:
        assert guarded.sh(name, "ls /etc/systemd/system | grep muster-return || true") == ""


def test_the_next_run_ends_an_exchange_before_it_begins_its_own(guarded: GuardedTestbed) -> None:
    cut = kill(guarded, begin(guarded, "stopping", max_num_seqs=35, supervisor="guard"))
    assert cut["phase"] == "stopping"
    leave_in_exchange(guarded, *THREE)
    guarded.sh("node0", f"cd /etc/muster/{GROUP}; mv .guard.json.muster-new guard.json")
    # A run that ends this exchange, and is then refused by the engine's parser.
    refused = guarded.refused(extra_args=["--no-such-flag"])
    assert refused.status == 1, refused.text
    last = refused.err.strip().splitlines()[-1]
    assert f"; the group was touched; unfinished: plan {cut['before']} -> {cut['after']}; this run has ended" in last
    assert "not touched" not in refused.err
    wait_alone(guarded, cut["after"])  # with nothing left to stop, the next phase would be over before the kill
    again = kill(guarded, begin(guarded, "stopping", max_num_seqs=37, supervisor="guard"))
    assert again["phase"] == "stopping"
    # The second run was cut as well: what is in place is the first one's plan, whole, on every host.
    for name in THREE:
        assert json.loads(guarded.sh(name, f"cat /etc/muster/{GROUP}/plan.json"))["digest"] == cut["after"]
    wait_alone(guarded, cut["after"])
    assert "this run finishes it" in guarded.deploy(max_num_seqs=37).text
    assert guarded.deploy("--json", max_num_seqs=37).results["totals"]["success"] == 0


def test_a_way_back_that_is_cut_is_gone_to_its_end_by_the_hosts(guarded: GuardedTestbed) -> None:
    before = guarded.status["digest"]
    with guarded.crashing("RuntimeError: no such weights", only_with="--max-num-seqs 39"):
        child = guarded.start("kimi_k2_instruct", "-y", max_num_seqs=39, supervisor="guard")

        def turned() -> bool:
            assert child.poll() is None, child.communicate()
            return all(record(guarded, name).get("command") == "rollback" for name in THREE)

        guarded.wait("the change goes back", turned, 120)
        kill(guarded, child)
        wait_alone(guarded, before)
    guarded.deploy()
    assert not any(record(guarded, name) for name in THREE)


def test_the_head_moves_to_another_host_in_one_run(guarded: GuardedTestbed) -> None:
    for inventory, head in ((REVERSED, 2), (INVENTORY, 0)):
        guarded.inventory = inventory
        guarded.deploy()
        assert [guarded.answers(host=host) for host in range(3)] == [host == head for host in range(3)]
        assert guarded.deploy("--json").results["totals"]["success"] == 0
