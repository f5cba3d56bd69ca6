"""The commands of `muster` as a user types them, on real hosts: from any directory, asked first, one last line."""

from __future__ import annotations

import subprocess

import pytest

from tests.deploys.conftest import GUARD_UNIT, HOSTS, GuardedTestbed

pytestmark = pytest.mark.sandbox


def muster(testbed: GuardedTestbed, command: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command; its standard output has all that a person would see, in order."""
    return testbed.muster(command, *words, stderr=subprocess.STDOUT)


def last(ran: subprocess.CompletedProcess[str]) -> str:
    return ran.stdout.splitlines()[-1]


def test_one_command_for_each_wish(guarded: GuardedTestbed) -> None:
    lives = {name: guarded.life(name, GUARD_UNIT) for name in HOSTS}

    again = muster(guarded, "deploy")
    assert again.returncode == 0, again.stdout
    (line,) = again.stdout.splitlines()
    assert line.startswith("muster: kimi-k2-instruct: nothing to change; DP2 serves at http://")

    refused = muster(guarded, "deploy", "--data", "max_num_seqs=21")
    assert refused.returncode == 2, refused.stdout
    assert "fix:    run it again with -y" in refused.stdout
    assert "will be restarted: requests in flight get up to 30 s" in refused.stdout
    assert "(its last start took " in refused.stdout
    assert last(refused).startswith("muster: refused; nothing was touched")
    misspelt = muster(guarded, "deploy", "--data", "max_num_sqs=21")
    assert (misspelt.returncode, "did you mean 'max_num_seqs'?" in misspelt.stdout) == (2, True)
    assert {name: guarded.life(name, GUARD_UNIT) for name in HOSTS} == lives

    status = muster(guarded, "status", "--data", "max_num_seqs=21")
    assert status.returncode == 0, status.stdout
    assert "these arguments plan " in status.stdout
    assert " as planned  " in muster(guarded, "status").stdout

    stopped = muster(guarded, "stop", "-y")
    assert stopped.returncode == 0, stopped.stdout
    told = last(stopped)
    assert told == (
        "muster: kimi-k2-instruct is stopped on node0, node1, until muster resume inventory.py kimi-k2-instruct"
    )
    held = muster(guarded, "status")
    assert held.returncode == 1, held.stdout
    assert "kimi-k2-instruct  stopped  by " in held.stdout
    assert "muster resume inventory.py kimi-k2-instruct starts it again" in held.stdout
    assert muster(guarded, "stop").stdout.splitlines() == [told]  # what is stopped is not asked about

    resumed = muster(guarded, "resume")
    assert resumed.returncode == 0, resumed.stdout
    assert last(resumed) == "muster: kimi-k2-instruct is ready on node0, node1"
    assert guarded.answers()


def test_a_failed_run_ends_with_what_failed_and_the_next_command(guarded: GuardedTestbed) -> None:
    with guarded.crashing("no such kernel"):
        ran = muster(guarded, "restart", "-y")
    assert ran.returncode == 1, ran.stdout
    assert "no such kernel" in last(ran)
    assert "unfinished: restart of plan " in last(ran)
    assert "; next: muster status inventory.py kimi-k2-instruct, " in last(ran)
    muster(guarded, "resume")
    guarded.wait("an answer", guarded.answers, 90)
