"""gpud#1174, open-gpu-kernel-modules#1355, vllm-backport#62, NVSentinel#545: which driver lines keep a host out."""

from __future__ import annotations

import pytest

from muster.guard import host_judge
from muster.guard.kernel_log import XidLog
from muster.preflight.checks import local
from tests.preflight import sample

LINES = {
    "[ 901.1] NVRM: Xid (PCI:0000:18:00): 145, RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x0409a0c2 0x00000008 0x00000001"
    " 0x00000000 0x00100000 0x00000004)": "ok",
    "[ 904.1] NVRM: Xid (PCI:0000:9c:00): 74, pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link"
    " 14(0x100000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)": "fail",
    "[ 905.1] NVRM: Xid (PCI:0000:9c:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot"
    " Required)": "fail",
    "[ 908.1] NVRM: Xid (PCI:0000:9c:00): 63, pid=4242, name=python3, Row Remapper: New row marked for remapping, reset"
    " gpu to activate.": "warn",
    "[ 909.1] NVRM: Xid (PCI:0000:9c:00): 48, pid=4242, name=python3, DBE (double bit error) ECC Error": "fail",
    "[ 911.1] nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up": "fail",
    "[ 913.1] NVRM: Xid (PCI:0000:9c:00): 94, pid=4242, name=python3, Contained: SM (0x1). RST: No, D-RST: No": "ok",
}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split("): ")[1].split(",")[0])
def test_guard_and_preflight_agree(line: str) -> None:
    report = sample.report(probe_gpus__driver_log=sample.printed(line + "\n", repaired=None))
    (verdict,) = [each for each in local(report, sample.needs()) if each.check == "gpu.xid"]
    log = XidLog((), None, lambda fatal: None, "/nonexistent")
    log.feed(line)
    assert verdict.level == LINES[line]
    assert bool(log.reason()) == (LINES[line] == "fail")
    if LINES[line] != "ok":
        assert "reset" in verdict.fix or "reboot" in verdict.fix


def test_after_the_repair_no_old_line_refuses_a_deploy() -> None:
    text = "\n".join(LINES)
    report = sample.report(probe_gpus__driver_log=sample.printed(text, repaired=1000.0))
    (verdict,) = [each for each in local(report, sample.needs()) if each.check == "gpu.xid"]
    assert verdict.level == host_judge.OK
