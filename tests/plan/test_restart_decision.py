"""What is to be done follows from plan and observations, for the whole group at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.plan import unit_files
from muster.plan.restart_decision import Decision, HostDecision, asked, decide, is_base
from muster.plan.types import File, Plan
from tests import sample_observations, sample_plans

DP = sample_plans.plain("kimi-k2-instruct", 2, "H200")
RAY = sample_plans.plain("kimi-k2-instruct", 2, "H800")


def decided(plan: Plan, seen: dict[str, dict[str, Any]]) -> Decision:
    return decide(plan, seen, {secret.path: sample_observations.SECRET for secret in plan.secrets})


@pytest.mark.parametrize("plan", [DP, RAY], ids=["dp", "ray"])
def test_a_group_as_planned_needs_nothing(plan: Plan) -> None:
    decision = decided(plan, sample_observations.as_planned(plan))
    assert not decision.changes
    assert decision.ready
    assert set(decision.hosts.values()) == {HostDecision()}


@pytest.mark.parametrize("plan", [DP, RAY], ids=["dp", "ray"])
def test_fresh_hosts_get_everything_and_nothing_is_stopped(plan: Plan) -> None:
    decision = decided(plan, sample_observations.fresh(plan))
    assert decision.restart
    assert not decision.ready
    for name, host in decision.hosts.items():
        planned = plan.hosts[name]
        assert set(host.base) | set(host.files) == set(planned.files)
        assert all(is_base(path) for path in host.base)
        assert not any(is_base(path) for path in host.files)
        assert host.secrets == tuple(secret.path for secret in plan.secrets)
        assert host.install
        assert host.send_uv
        assert host.ask == asked(planned)
        assert host.enable
        assert host.stop == ()


def differing_file(seen: dict[str, Any], plan: Plan) -> None:
    seen["files"][f"/etc/systemd/system/{next(iter(seen['units']))}"]["sha256"] = "0" * 64


def wrong_mode(seen: dict[str, Any], plan: Plan) -> None:
    seen["files"][f"/etc/systemd/system/{next(iter(seen['units']))}"]["mode"] = "666"


def dead_unit(seen: dict[str, Any], plan: Plan) -> None:
    next(iter(seen["units"].values()))["active"] = "failed"


def old_digest(seen: dict[str, Any], plan: Plan) -> None:
    next(iter(seen["units"].values()))["digest"] = "older"


def no_release(seen: dict[str, Any], plan: Plan) -> None:
    seen["release"]["complete"] = False


def other_secret(seen: dict[str, Any], plan: Plan) -> None:
    next(iter(seen["secrets"].values()))["sha256"] = "0" * 64


CHANGES: list[Callable[[dict[str, Any], Plan], None]] = [
    differing_file,
    wrong_mode,
    dead_unit,
    old_digest,
    no_release,
    other_secret,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("where", [0, 1])
def test_one_change_on_one_host_restarts_the_group(change: Callable[..., None], where: int) -> None:
    seen = sample_observations.as_planned(RAY)
    name = list(RAY.hosts)[where]
    change(seen[name], RAY)
    decision = decided(RAY, seen)
    assert decision.restart
    assert (decision.ready, decision.answers) == (False, True)
    assert any(reason.startswith(f"{name}: ") for reason in decision.reasons)
    for other, host in decision.hosts.items():
        running = {unit for unit, told in seen[other]["units"].items() if told["active"] == "active"}
        assert set(host.stop) == running


def test_a_missing_plan_json_is_written_again_and_restarts_nothing() -> None:
    seen = sample_observations.as_planned(DP)
    path = f"/etc/muster/{DP.group}/plan.json"
    seen["h200-1"]["files"][path] = {"kind": "missing"}
    decision = decided(DP, seen)
    assert decision.hosts["h200-1"] == HostDecision(files=(path,))
    assert not decision.restart


def test_limits_take_effect_without_a_restart() -> None:
    seen = sample_observations.as_planned(DP)
    seen["h200-1"]["files"]["/etc/sysctl.d/90-muster.conf"] = {"kind": "missing"}
    decision = decided(DP, seen)
    assert decision.changes
    assert not decision.restart
    assert decision.hosts["h200-1"].base == ("/etc/sysctl.d/90-muster.conf",)
    assert decision.hosts["h200-0"] == HostDecision()


def test_a_unit_that_systemd_has_not_read_again_is_read_again_and_runs_on() -> None:
    seen = sample_observations.as_planned(DP)
    name = next(iter(DP.hosts))
    seen[name]["units"][DP.hosts[name].units[0]]["reload"] = True
    decision = decided(DP, seen)
    assert decision.hosts[name] == HostDecision(reload=True)
    assert decision.changes
    assert not decision.restart


def test_another_comment_in_a_base_file_of_the_plan_restarts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = unit_files.fixed
    path = "/etc/sysctl.d/90-muster.conf"

    def commented(name: str, **values: str) -> File:
        file = fixed(name, **values)
        return replace(file, text=file.text + "# Another comment.\n" * (name == "sysctl.conf.j2"))

    monkeypatch.setattr(unit_files, "fixed", commented)
    newer = sample_plans.plain("kimi-k2-instruct", 2, "H200")
    assert newer.hosts["h200-0"].files[path] != DP.hosts["h200-0"].files[path]
    assert newer.digest == DP.digest
    decision = decided(newer, sample_observations.as_planned(DP))
    assert not decision.restart
    assert {host: part.base for host, part in decision.hosts.items()} == dict.fromkeys(DP.hosts, (path,))


def test_two_groups_on_one_host_agree_on_every_file_they_share() -> None:
    other = sample_plans.plain(
        "kimi-k2-instruct", 2, "H200", group="second", root="/srv/muster", hf_home="/srv/hf", port=9000
    )
    for name, host in DP.hosts.items():
        shared = host.files.keys() & other.hosts[name].files.keys()
        assert {path: other.hosts[name].files[path] for path in shared} == {path: host.files[path] for path in shared}


def test_a_group_that_still_loads_is_waited_for_and_not_restarted() -> None:
    seen = sample_observations.as_planned(DP)
    seen["h200-0"]["ready"] = False
    decision = decided(DP, seen)
    assert decision.changes
    assert not decision.restart
    assert (decision.ready, decision.answers) == (False, False)


def test_a_rank_that_came_back_alone_cannot_join_and_the_group_is_restarted() -> None:
    seen = sample_observations.as_planned(DP)
    seen["h200-1"]["units"][DP.hosts["h200-1"].units[0]]["restarts"] = 1
    assert not decided(DP, seen).changes
    seen["h200-0"]["ready"] = False
    assert decided(DP, seen).restart
    assert not decided(replace(DP, heals=True), seen).restart


def test_files_no_plan_names_are_removed_and_their_units_stopped_with_the_rest() -> None:
    seen = sample_observations.as_planned(DP)
    old = "muster-kimi-k2-instruct-ray.service"
    seen["h200-1"]["stale"] = [f"/etc/systemd/system/{old}"]
    seen["h200-1"]["units"][old] = {"active": "active", "digest": "older", "enabled": True}
    dead_unit(seen["h200-0"], DP)
    decision = decided(DP, seen)
    assert decision.hosts["h200-1"].remove == (f"/etc/systemd/system/{old}",)
    assert old in decision.hosts["h200-1"].stop


def test_units_stop_in_the_reverse_of_their_start() -> None:
    seen = sample_observations.as_planned(RAY)
    dead = seen["h800-1"]
    differing_file(dead, RAY)
    assert decided(RAY, seen).hosts["h800-0"].stop == tuple(reversed(RAY.hosts["h800-0"].units))


def test_only_a_command_line_the_parser_has_not_taken_is_asked_again() -> None:
    seen = sample_observations.as_planned(DP)
    seen["h200-1"]["accepted"] = [False]
    decision = decided(DP, seen)
    assert decision.hosts["h200-1"].ask == asked(DP.hosts["h200-1"])
    assert decision.hosts["h200-0"].ask == ()
    assert not decision.restart


def test_the_probe_says_nothing_of_ray_workers_command_lines() -> None:
    assert asked(RAY.hosts["h800-1"]) == ()
    assert len(asked(RAY.hosts["h800-0"])) == 1


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(CHANGES)), max_size=4))
def test_a_decision_is_about_every_host_and_gives_a_reason_for_every_restart(
    changes: list[tuple[int, Callable[..., None]]],
) -> None:
    seen = sample_observations.as_planned(RAY)
    for where, change in changes:
        change(seen[list(RAY.hosts)[where]], RAY)
    decision = decided(RAY, seen)
    assert list(decision.hosts) == list(RAY.hosts)
    assert decision.restart == bool(changes) == bool(decision.reasons)
    if not decision.restart:
        assert all(host.stop == () for host in decision.hosts.values())


@pytest.mark.parametrize("held", ["stopped", "failed"])
def test_a_held_group_is_resumed_and_not_restarted(held: str) -> None:
    plan = replace(DP, heals=True)
    seen = sample_observations.as_planned(plan)
    seen["h200-0"] |= {"held": held, "ready": False}
    found = decided(plan, seen)
    assert (found.held, found.restart, found.changes) == (held, False, True)
    assert decided(DP, seen).held == ""
