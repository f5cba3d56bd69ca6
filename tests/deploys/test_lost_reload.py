"""A plan that is on the disk and not in systemd: found by what runs, and made up for with one restart at most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from muster.sandbox import Sandbox
from tests import guard_answers
from tests.deploys.conftest import GROUP, GUARD_UNIT, THREE, GuardedTestbed

pytestmark = pytest.mark.sandbox

_ENV = {"extra_env": {"NCCL_DEBUG": "INFO"}}
_ARGV = {"max_num_seqs": 17}

# A systemctl that does this when it is to reload, after the renames and before systemd has read them.
_INSTEAD = """#!/bin/sh
case " $* " in *" daemon-reload "*) {does};; esac
exec /usr/bin/systemctl.real "$@"
"""
CUT = "kill -9 $PPID; exit 1"
FULL = "mount -o remount,size=$(($(df --output=used /run | tail -1) + 1024))k /run"
"""Leaves a megabyte: systemd reloads nothing below 16."""


@pytest.fixture
def box(three: Sandbox) -> Sandbox:
    return three


@contextmanager
def instead_of_a_reload(testbed: GuardedTestbed, does: str) -> Iterator[None]:
    size = testbed.sh("node1", "df --output=size /run | tail -1")
    testbed.sh("node1", "mv /usr/bin/systemctl /usr/bin/systemctl.real")
    place = testbed.box.tree("node1") / "usr/bin/systemctl"
    place.write_text(_INSTEAD.format(does=does), encoding="utf-8")
    place.chmod(0o755)
    try:
        yield
    finally:
        testbed.sh("node1", f"mv /usr/bin/systemctl.real /usr/bin/systemctl; mount -o remount,size={size}k /run")


def engines(testbed: GuardedTestbed) -> dict[str, str]:
    """Host -> environment and command line of its engine."""
    show = "tr '\\0' ' ' </proc/$p/environ; tr '\\0' ' ' </proc/$p/cmdline"
    find = "p=$(pgrep -o -f '^/opt/standin/bin/python.* serve ')"
    return {name: testbed.sh(name, f"{find} && {show}") for name in THREE}


@pytest.mark.parametrize(
    ("fault", "change", "shows"),
    [
        pytest.param(CUT, _ENV, "NCCL_DEBUG=INFO", id="cut, environment"),
        pytest.param(CUT, _ARGV, "--max-num-seqs 17", id="cut, command line", marks=pytest.mark.nightly),
        pytest.param(FULL, _ENV, "NCCL_DEBUG=INFO", id="full, environment", marks=pytest.mark.nightly),
        pytest.param(FULL, _ARGV, "--max-num-seqs 17", id="full, command line", marks=pytest.mark.nightly),
    ],
)
def test_a_lost_reload_is_made_up_for(guarded: GuardedTestbed, fault: str, change: dict[str, Any], shows: str) -> None:
    with instead_of_a_reload(guarded, fault):
        ran = guarded.refused(**change)
        assert ("safety buffer" if fault == FULL else "printed no answer") in ran.err
    before = {name: guarded.starts(name, GUARD_UNIT) for name in THREE}
    guarded.deploy(**change)
    assert {name: guarded.starts(name, GUARD_UNIT) - before[name] for name in THREE} == dict.fromkeys(THREE, 1)
    assert all(shows in text for text in engines(guarded).values())
    assert guarded.deploy("--json", **change).results["totals"]["success"] == 0


def test_a_guard_that_systemd_started_by_an_older_unit_starts_no_engine(guarded: GuardedTestbed) -> None:
    """Its unit carries one plan, the guard.json that it reads another."""
    config = f"/etc/muster/{GROUP}/guard.json"
    guarded.sh("node1", f"cp {config} /root/guard.json")
    change = f'sed -i \'s/"digest": "[0-9a-f]*"/"digest": "{"0" * 16}"/\' {config}'
    guarded.sh("node1", f"{change}; systemctl restart {GUARD_UNIT}")

    def blocked() -> str:
        return str(guard_answers.ask(guarded.box, "node1", GROUP, "status").get("member", {}).get("blocked", ""))

    try:
        guarded.wait("the block", lambda: "by the unit of plan" in blocked())
        assert "daemon-reload" in blocked()
        assert guarded.sh("node1", "pgrep -f '^VLLM::' || echo none") == "none"
    finally:
        guarded.sh("node1", f"cp /root/guard.json {config}; systemctl restart {GUARD_UNIT}")
    guarded.wait("the group", guarded.answers)


def test_a_full_run_is_refused_before_anything_stops(untouched: GuardedTestbed) -> None:
    size = untouched.sh("node1", "df --output=size /run | tail -1")
    untouched.sh("node1", FULL)
    try:
        ran = untouched.refused(max_num_seqs=17)
    finally:
        untouched.sh("node1", f"mount -o remount,size={size}k /run")
    assert ran.status == 2, ran.text
    assert "deploy.run  node1" in ran.err
    assert "/run has 1" in ran.err
    assert "nothing was touched" in ran.err
