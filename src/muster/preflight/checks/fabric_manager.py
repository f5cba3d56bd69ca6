"""NVIDIA's Fabric Manager: on HGX boards CUDA fails with error 802 without it."""

from __future__ import annotations

from collections.abc import Iterator

from muster.guard import host_judge
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict, fail, of_finding, ok
from muster.spec.versions import version


def check(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    """Judge the service, its version and the fabric state of the GPUs."""
    if isinstance(report.gpus, Unreadable) or not report.gpus:
        return
    finding = host_judge.fabric(gpu.device for gpu in report.gpus)
    fabric, done = finding is not None, finding is not None and finding.level == host_judge.OK
    manager = report.fabric_manager
    if isinstance(manager, Unreadable):
        if fabric:
            yield fail("fabric_manager.service", manager.why, "systemd's view of the service", host_judge.START_FABRIC)
    elif manager.active == "active":
        yield ok("fabric_manager.service", "active")
        yield _version(manager.version, report.driver)
    elif done and manager.load == "not-found":
        # In a virtual machine with passed-through GPUs the manager runs outside.
        yield ok("fabric_manager.service", "not on this host; the fabric is up without it")
    elif fabric or manager.load == "loaded":
        found = f"{manager.load}, {manager.active}"
        yield fail("fabric_manager.service", found, "active", host_judge.START_FABRIC)
    else:
        yield ok("fabric_manager.service", "not needed: no NVSwitch fabric")
    if finding is not None:
        yield of_finding(finding)


def _version(installed: str, driver: str | None) -> Verdict:
    if installed and version(installed) == version(driver):
        return ok("fabric_manager.version", installed)
    fix = f"install nvidia-fabricmanager of exactly version {driver} and restart it"
    return fail("fabric_manager.version", installed or "unknown", f"{driver}, the driver's", fix)
