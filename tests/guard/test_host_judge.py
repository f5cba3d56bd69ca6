"""The one judge of a host: which lines of the driver block, what answers them, which GPUs a group uses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.guard import host_judge, xids
from muster.guard.host_judge import Device, Finding
from muster.guard.xids import DriverLine

BUS = "0000:9c:00"


def xid(code: int, words: str, at: float = 100.0, bus: str = BUS) -> str:
    return f"[{at:12.6f}] node0 kernel: NVRM: Xid (PCI:{bus}): {code}, {words}"


def lines(*texts: str) -> list[DriverLine]:
    return [each for each in map(xids.driver_line, texts) if each is not None]


def judged(*texts: str, repaired: float | None = None) -> Finding:
    return xids.kernel_log(lines(*texts), repaired)


PID = "pid='<unknown>', name=<unknown>, "


@pytest.mark.parametrize(
    ("text", "level", "part"),
    [
        (xid(79, PID + "GPU has fallen off the bus."), "fail", "reboot the host"),
        (xid(48, "pid=4242, name=python3, DBE (double bit error) ECC Error"), "fail", "reset the GPU"),
        (xid(74, PID + "NVLink: fatal error detected on link 14(0x100000, 0x0)"), "fail", "reset the GPU"),
        (xid(145, "RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x0409a0c2 0x00000008)"), "ok", ""),
        (xid(145, "RLW_RXPIPE Fatal XC0 i0 Link 13 (0x0409a0c2 0x00000008)"), "fail", "reset the GPU"),
        (xid(154, "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"), "fail", "reset the GPU"),
        (xid(154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"), "fail", "reboot"),
        (xid(154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"), "ok", ""),
        (xid(63, "pid=1, name=x, Row Remapper: New row marked for remapping, reset gpu to activate."), "warn", "reset"),
        (xid(94, "pid=1, name=x, Contained: SM (0x1). RST: No, D-RST: No"), "ok", ""),
        (xid(94, "pid=1, name=x, Contained: SM (0x1). RST: Yes, D-RST: No"), "fail", "reset the GPU"),
        (xid(31, "pid=1, name=x, Ch 00000008, MMU Fault"), "ok", ""),
        (xid(999, "something new"), "warn", "Xid catalogue"),
        (
            "[ 911.1] nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
            "fail",
            "NVSwitches",
        ),
        ("[ 911.1] nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 22013, Non-fatal, Link 40 Minion Link DLREQ", "ok", ""),
        ("[ 911.1] nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 22013, Severity 0 Engine instance 40", "ok", ""),
        ("[   1.0] usb 1-1: new device", "ok", ""),
    ],
)
def test_the_driver_s_own_words_decide(text: str, level: str, part: str) -> None:
    finding = judged(text)
    assert finding.level == level
    assert part in finding.fix


def test_a_repair_answers_what_came_before_it_and_nothing_after() -> None:
    before, after = xid(48, "DBE", at=100.0), xid(48, "DBE", at=300.0)
    assert judged(before).level == "fail"
    assert judged(before, repaired=200.0).level == "ok"
    assert judged(before, after, repaired=200.0).level == "fail"


def test_a_driver_that_is_loaded_again_answers_what_came_before() -> None:
    loaded = "[ 200.0] node0 kernel: NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.159.04"
    switch = "[ 100.0] nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"
    assert judged(xid(79, "gone"), switch, loaded).level == "ok"
    assert judged(loaded, xid(79, "gone", at=300.0)).level == "fail"


def test_a_recovery_action_of_none_answers_its_own_gpu_only() -> None:
    other = xid(48, "DBE", bus="0000:18:00")
    none = xid(154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)", at=200.0)
    assert judged(xid(48, "DBE"), none).level == "ok"
    assert judged(xid(48, "DBE"), other, none).found.startswith("Xid 48 on 0000:18:00")


def test_a_fault_of_a_gpu_that_the_group_does_not_use_is_a_warning() -> None:
    unused = [Device(6, "GPU-6", "00000000:9C:00.0")]
    fatal = lines(xid(48, "DBE"))
    assert xids.kernel_log(fatal, None, unused).level == "warn"
    assert xids.kernel_log(fatal, None, [Device(6, "GPU-6", "00000000:18:00.0")]).level == "fail"


HOST = tuple(Device(index, f"GPU-{index}", fabric_state="Completed", fabric_status="Success") for index in range(8))


def test_the_first_gpus_are_the_group_s_unless_it_names_others() -> None:
    chosen, finding = host_judge.choose(tuple(reversed(HOST)), 4)
    assert ([each.index for each in chosen], finding.level) == ([0, 1, 2, 3], "ok")
    chosen, finding = host_judge.choose(HOST, 2, ("6", "GPU-4"))
    assert ([each.index for each in chosen], finding.found) == ([6, 4], "8, of which the group uses 6, 4")
    assert host_judge.visible(HOST, chosen) == {"CUDA_VISIBLE_DEVICES": "GPU-6,GPU-4"}
    assert host_judge.visible(HOST, HOST) == {}


def test_a_gpu_that_is_not_there_is_named() -> None:
    assert host_judge.choose(HOST[:7], 8)[1].found == "7; missing: GPU 7"
    assert host_judge.choose(HOST, 2, ("3", "9"))[1].found == "8; missing: GPU 9"


@pytest.mark.parametrize(("count", "wanted"), [(2, ("0", "GPU-0")), (4, ("0", "1")), (1, ("0", "1"))])
def test_as_many_different_gpus_are_named_as_are_used(count: int, wanted: tuple[str, ...]) -> None:
    chosen, finding = host_judge.choose(HOST, count, wanted)
    assert (len(chosen), finding.level) == (len({name[-1] for name in wanted}), "fail")
    assert finding.found == f"8; gpu_devices names {len(chosen)} of them: {', '.join(wanted)}"
    assert "gpu_devices" in finding.fix


@given(st.text(max_size=300))
def test_whatever_the_log_holds_is_read(text: str) -> None:
    assert xids.kernel_log(lines(text, xid(1, text), f"nvidia-nvswitch0: SXid (PCI:{text}): 1, {text}")).level
