"""Who has gone: a member of the deployed group that the plan knows neither by name nor by address."""

from __future__ import annotations

from dataclasses import replace

from muster.deploys.leave import gone
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
