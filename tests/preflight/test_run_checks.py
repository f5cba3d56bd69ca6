"""When pairs and the all-reduce are left out."""

from __future__ import annotations

from typing import Any

import pytest
from pyinfra.api.state import State

from muster.errors import Refusal
from muster.preflight import run_checks
from muster.preflight.host_report import unreachable
from muster.spec.settings import Settings
from tests.sample_plans import plan

from . import sample


def group(*units: str) -> dict[str, Any]:
    return {"probe_machine__units": {"value": {"running": list(units)}}}


@pytest.mark.parametrize(
    ("sources", "running"),
    [
        ({}, False),
        (group("muster-g.service"), True),
        (group("muster-other.service", "muster-gg.service"), False),
        ({"probe_machine__units": {"error": "no /sys"}}, False),
    ],
)
def test_a_group_runs_when_its_units_have_processes(sources: dict[str, Any], running: bool) -> None:
    assert run_checks.running([sample.report(**sources)], {"h200-0": sample.needs()}) is running


def test_hosts_asked_without_a_recipe_know_any_group_of_ours() -> None:
    needs = {"h200-0": sample.needs(units=("muster-",))}
    assert run_checks.running([sample.report(**group("muster-other.service"))], needs)
    assert not run_checks.running([sample.report(**group("nginx.service"))], needs)


def test_an_unknown_waiver_is_refused_before_a_host_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_checks, "probe_plan", lambda *_, **__: pytest.fail("asked a host"))
    made, settings = plan("kimi-k2-instruct", 2, "H200"), Settings(preflight_waive=["gpu.migg"])
    with pytest.raises(Refusal, match=r"gpu\.migg"):
        run_checks.run_recipe(State(), made, lambda variant: made, settings, title="t", unreached={})


@pytest.mark.parametrize(
    ("report", "idle", "why"),
    [
        (sample.report(), True, None),
        (sample.report(), False, "the group is running"),
        (unreachable("h200-0", "timed out"), True, "h200-0 was not reached"),
        (sample.report(probe_engine={"release": None}), True, "no engine is installed on h200-0 yet"),
    ],
)
def test_why_there_is_no_all_reduce(report: Any, idle: bool, why: str | None) -> None:
    assert run_checks._why_no_nccl([report], {"h200-0": sample.needs()}, idle=idle) == why
