"""Every reason of a deploy's own not to touch a host, each with what was found, what is needed, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muster.preflight.catalogue import CHECKS
from muster.preflight.deploy_checks import verdicts
from tests import sample_observations, sample_plans

PLAN = sample_plans.plain("kimi-k2-instruct", 2, "H200")
MINE = sample_plans.plain("kimi-k2-instruct", 2, "H200", engine_path="/opt/mine")
# The head: only it listens.
HOST = "h200-0"

Change = Callable[[dict[str, Any]], Any]

CASES: dict[str, tuple[Change, str, str, str]] = {
    "deploy.state": (lambda s: s.update(error="disk on fire"), "disk on fire", "probe", "repair"),
    "deploy.systemd": (lambda s: s.update(units={"error": "no bus"}), "no bus", "answers", "systemctl"),
    "deploy.run": (lambda s: s.update(run_free=1 << 20), "/run has 1 MiB free", "16 MiB", "remove what fills it"),
    "deploy.engine": (lambda s: s["release"].update(runs=False), "/opt/mine has no bin/vllm", "vLLM", "engine_path"),
    "deploy.units": (
        lambda s: s.update(groups={"older-vllm": {"units": [f"muster-{PLAN.group}-vllm.service", "x.service"]}}),
        f"muster-{PLAN.group}-vllm.service is a unit of group older-vllm",
        "units of its own",
        "set group",
    ),
    "deploy.ports": (
        lambda s: s.update(groups={"older": {"ports": [29550, 1]}}),
        "group older on this host uses port 29550",
        "ports of its own",
        "rpc_port",
    ),
    "deploy.gpus": (
        lambda s: s.update(groups={"older": {"gpus": ["6", "7", "8"]}}),
        "group older on this host has GPUs 6, 7",
        "GPUs of its own",
        "--data former_group=older",
    ),
    "deploy.files": (
        lambda s: s["files"].update({"/etc/muster/kimi-k2-instruct/vllm.env": {"kind": "other"}}),
        "vllm.env is not a regular file",
        "a file",
        "rm -r",
    ),
}


@pytest.mark.parametrize("check", CASES)
def test_each_names_host_found_needed_and_fix(check: str) -> None:
    change, found, needed, fix = CASES[check]
    plan = MINE if check == "deploy.engine" else PLAN
    seen = sample_observations.as_planned(plan)
    change(seen[HOST])
    (reason,) = verdicts(plan, seen)
    assert (reason.host, reason.check, reason.level) == (HOST, check, "fail")
    assert found in reason.found
    assert needed in reason.needed
    assert fix in reason.fix


def test_every_check_of_a_deploy_has_a_case() -> None:
    assert set(CASES) == {name for name in CHECKS if name.startswith("deploy.")}


def test_a_group_that_names_its_gpus_otherwise_may_have_the_same() -> None:
    seen = sample_observations.as_planned(PLAN)
    seen[HOST].update(groups={"older": {"gpus": ["GPU-1e2f3a4b"]}, "oldest": {}})
    (reason,) = verdicts(PLAN, seen)
    assert reason.check == "deploy.gpus"
    assert "an index and a UUID may be the same GPU" in reason.needed


def test_what_the_former_group_has_is_taken_over_but_its_units_are_its_own() -> None:
    seen = sample_observations.as_planned(PLAN)
    theirs = {"ports": [29550], "gpus": ["6", "7"]}
    seen[HOST].update(groups={"older": {**theirs, "units": [f"muster-{PLAN.group}-vllm.service"]}, "third": theirs})
    reasons = {(reason.check, reason.found.split()[1]) for reason in verdicts(PLAN, seen, former="older")}
    assert reasons == {
        ("deploy.units", "is"),  # one file cannot be both, and the former group's goes
        ("deploy.ports", "third"),
        ("deploy.gpus", "third"),
    }


def test_hosts_as_planned_have_nothing_against_it() -> None:
    assert verdicts(PLAN, sample_observations.as_planned(PLAN)) == ()
    assert verdicts(PLAN, sample_observations.fresh(PLAN)) == ()


def test_an_unreached_host_is_not_asked_about() -> None:
    seen = sample_observations.as_planned(PLAN)
    del seen[HOST]
    assert verdicts(PLAN, seen) == ()
