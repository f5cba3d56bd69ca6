"""homelab#4110: NVML's version mismatch on one of two hosts asks for a reboot there, and for nothing on the other."""

from __future__ import annotations

import asyncio

from muster.guard import start_checks
from muster.guard.group_settings import Checks
from muster.preflight.outcome import judge_group
from tests.preflight import sample

MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.159\n"


def test_that_host_reboots_and_the_healthy_one_does_not_deviate() -> None:
    broken = {"probe_gpus__gpus": sample.printed(MISMATCH, rc=18)}
    reports = [sample.report("a", "198.51.100.11"), sample.report("b", "198.51.100.12", **broken)]
    needs = {one.host: sample.needs(one.host, f"198.51.100.1{place}") for place, one in enumerate(reports, 1)}
    outcome = judge_group("t", reports, needs)
    assert {verdict.check for verdict in outcome.verdicts if verdict.host == "a" and verdict.level != "ok"} == set()
    (verdict,) = [v for v in outcome.verdicts if (v.check, v.host) == ("driver.present", "b")]
    assert verdict.level == "fail"
    assert "reboot" in verdict.fix
    assert "install" not in verdict.fix


def test_the_guard_says_the_same() -> None:
    command = ("sh", "-c", f"printf '{MISMATCH}'; exit 18")
    gpus = asyncio.run(start_checks.gpus(Checks(gpus=2, gpu_command=command), 5.0))
    assert "reboot the host" in gpus.problem
