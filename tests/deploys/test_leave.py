"""Who has gone: a member of the deployed group that the plan knows neither by name nor by address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from muster.deploys import stop_restart_resume
from muster.deploys.deployed_group import DeployedGroup, is_between_lives
from muster.deploys.leave import gone
from muster.deploys.shared.progress import Progress
from muster.hosts.deploy_run import DONE, run_deploy
from muster.hosts.run_options import RunOptions
from tests.sample_plans import plan

PLAN = plan("kimi-k2-instruct", 2, "H200")


def test_hosts_that_the_plan_has_no_more_are_named() -> None:
    members = {name: host.address for name, host in PLAN.hosts.items()}
    assert gone(PLAN, {"h200-0": {"members": members}, "h200-1": {}}) == {}
    seen = {"h200-0": {"members": {**members, "h200-2": "198.51.100.3"}}, "h200-1": {"members": members}}
    assert gone(PLAN, seen) == {"h200-2": "198.51.100.3"}


def test_a_host_under_another_name_has_not_gone() -> None:
    renamed = replace(PLAN, hosts={f"new-{name}": host for name, host in PLAN.hosts.items()})
    assert gone(renamed, {"new-h200-0": {"members": {name: host.address for name, host in PLAN.hosts.items()}}}) == {}


@pytest.mark.parametrize("command", [stop_restart_resume.stop, stop_restart_resume.restart, stop_restart_resume.resume])
def test_a_host_without_a_part_of_the_group_is_asked_for_nothing(
    command: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("hosts = ['@local']\n")
    monkeypatch.chdir(tmp_path)
    deployed = DeployedGroup("g", {"n0": ("g.service",)}, Progress(("n0",), (), 60, "g"), guarded=True)
    monkeypatch.setattr(stop_restart_resume, "find", lambda *_: deployed)
    assert run_deploy("mine.py", {}, command, RunOptions(yes=True)) == DONE
    assert capsys.readouterr().err.splitlines()[-1].startswith("muster: g is ")


@pytest.mark.parametrize(
    ("active", "between"),
    [("deactivating", True), ("activating", True), ("active", True), ("failed", False), ("inactive", False)],
)
def test_a_guard_that_systemd_is_about_to_start_is_waited_for(active: str, between: bool) -> None:
    assert is_between_lives({"units": {"muster-kimi.service": {"active": active}}}) == between
    assert not is_between_lives({"units": {}})
