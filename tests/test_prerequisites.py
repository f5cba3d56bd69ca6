"""Every reason not to touch a host, each with what was found, what is needed, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muster.plan import Plan
from muster.prerequisites import problems, report
from tests import fleet, observed

PLAN = fleet.plain("kimi-k2-instruct", 2, "H200")
HOST = "h200-1"

Change = Callable[[dict[str, Any]], Any]

CASES: dict[str, tuple[Change, str, str, str]] = {
    "not root": (lambda s: s.update(uid=1000), "uid 1000", "root", "--sudo"),
    "old systemd": (lambda s: s.update(systemd=245), "systemd 245", "systemd 247", "upgrade"),
    "no systemd": (lambda s: s.update(systemd={"error": "not booted"}), "not booted", "systemd 247", "systemd"),
    "silent systemd": (lambda s: s.update(units={"error": "no bus"}), "no bus", "running", "systemctl"),
    "small disk": (
        lambda s: s.update(release={"exists": False, "complete": False, "runs": False}, disk_free=2**30),
        "1.0 GiB free",
        "14 GiB",
        "`root`",
    ),
    "no driver": (lambda s: s.update(gpus={"error": "no devices"}), "no devices", "8x NVIDIA H200", "driver"),
    "a GPU is gone": (lambda s: s["gpus"]["devices"].pop(), "7 GPUs", "8, as the inventory says", "nvidia-smi -L"),
    "other GPUs": (
        lambda s: s["gpus"].update(devices=[{"name": "NVIDIA H20", "memory_mib": 97871}] * 8),
        "'NVIDIA H20'",
        "'NVIDIA H200'",
        "inventory",
    ),
    "MIG": (
        lambda s: s["gpus"].update(devices=[{"name": "NVIDIA H200", "memory_mib": 18000}] * 8),
        "18000 MiB",
        "143771 MiB",
        "MIG",
    ),
    "no such address": (
        lambda s: s.update(addresses={"10.9.9.9": "eth7"}),
        "10.9.9.9 (eth7)",
        "reach",
        "fabric_address",
    ),
    "other interface": (
        lambda s: s["addresses"].update({PLAN.hosts[HOST].address: "eth7"}),
        "on eth7",
        "on eth1",
        "fabric_interface",
    ),
    "no ip tool": (lambda s: s.update(addresses={"error": "ip: No such file"}), "No such file", "ip", "iproute2"),
    "port taken": (
        lambda s: s.update(listening={"8000": {"pid": 99, "command": "nginx", "unit": "nginx.service"}}),
        "port 8000 is taken by nginx (pid 99, unit nginx.service)",
        "8000 free",
        "group_data",
    ),
    "other group": (
        lambda s: s.update(groups={"older": {"ports": [29550, 1]}}),
        "group older on this host uses port 29550",
        "ports of its own",
        "rpc_port",
    ),
    "a directory in the way": (
        lambda s: s["files"].update({"/etc/muster/kimi-k2-instruct/vllm.env": {"kind": "other"}}),
        "vllm.env is no regular file",
        "a file",
        "remove it",
    ),
}


def plan_for(case: str) -> tuple[Plan, str]:
    # Only the head listens; the other cases are told of the other host.
    return PLAN, ("h200-0" if case in ("port taken", "other group") else HOST)


@pytest.mark.parametrize("case", CASES)
def test_each_problem_names_host_found_needed_and_fix(case: str) -> None:
    change, found, needed, fix = CASES[case]
    plan, host = plan_for(case)
    seen = observed.as_planned(plan)
    change(seen[host])
    told = problems(plan, seen)
    assert [problem.host for problem in told] == [host]
    assert found in told[0].found
    assert needed in told[0].needed
    assert fix in told[0].fix


def test_hosts_as_planned_have_no_problem() -> None:
    assert problems(PLAN, observed.as_planned(PLAN)) == ()
    assert problems(PLAN, observed.fresh(PLAN)) == ()


def test_a_users_own_engine_must_be_there() -> None:
    plan = fleet.plain("kimi-k2-instruct", 2, "H200", engine_path="/opt/mine")
    seen = observed.as_planned(plan)
    seen[HOST]["release"]["runs"] = False
    told = problems(plan, seen)
    assert len(told) == 1
    assert "/opt/mine has no bin/vllm" in told[0].found
    assert "engine_path" in told[0].fix


def test_one_report_holds_every_problem_of_every_host() -> None:
    seen = observed.as_planned(PLAN)
    seen["h200-0"]["systemd"] = 245
    seen["h200-1"]["systemd"] = 245
    seen["h200-1"]["gpus"]["devices"].pop()
    text = report(problems(PLAN, seen))
    assert text.startswith("3 problems on 2 hosts; nothing was touched")
    assert text.count("h200-1: ") == 2
    assert text.count("fix:") == 3


def test_the_groups_own_processes_may_hold_its_ports() -> None:
    seen = observed.as_planned(PLAN)
    assert seen["h200-0"]["listening"]
    assert problems(PLAN, seen) == ()
