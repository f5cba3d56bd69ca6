"""Fatal Xids from the kernel's log."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from muster.guard.kernel_log import KEPT_LINES, XidLog

LINE = "[5.0] host kernel: NVRM: Xid (PCI:0000:9b:00): 48, pid=1, name=x, DBE (double bit error) ECC Error"


def kernel(resumed: float | None = None, marker: str = "/nonexistent") -> tuple[XidLog, list[str]]:
    fatal: list[str] = []
    return XidLog((), resumed, fatal.append, marker), fatal


def test_fatal_lines_are_reported_once_and_can_be_acknowledged() -> None:
    log, fatal = kernel()
    for text in ("[1.0] usb 1-1: new device", "[2.0] NVRM: Xid (PCI:0000:9b:00): 31, pid=1, MMU fault", LINE, LINE):
        log.feed(text)
    assert fatal == [LINE]
    assert len(log.lines) == 2
    assert log.reason().startswith(f"fatal Xid: {LINE}; reset the GPU (nvidia-smi --gpu-reset) or reboot, then run")
    resumed = log.acknowledge()
    assert log.reason() == ""
    again, fatal = kernel(resumed)
    again.feed(LINE)
    assert (fatal, again.reason()) == ([], "")


def test_a_marker_of_root_says_when_the_host_was_repaired(tmp_path: Path) -> None:
    marker = tmp_path / "repaired"
    log, _ = kernel(marker=str(marker))
    log.feed(LINE)
    assert log.reason()
    marker.touch()
    assert log.reason() == ""
    log.feed(LINE.replace("[5.0]", f"[{time.monotonic() + 60:.1f}]"))
    assert log.reason()


def test_many_harmless_lines_do_not_push_a_fatal_one_out() -> None:
    log, fatal = kernel()
    log.feed(LINE)
    for number in range(3 * KEPT_LINES):
        log.feed(f"[{10 + number}.0] host kernel: NVRM: Xid (PCI:0000:9b:00): 31, pid={number}, MMU fault")
    assert log.reason()
    assert len(log.driver_lines) <= KEPT_LINES
    assert fatal == [LINE]


def test_a_reader_that_starts_again_takes_nothing_back() -> None:
    """The driver's loading is older than the error, whatever order a second reading of the boot brings them in."""

    async def work() -> tuple[XidLog, list[str]]:
        fatal: list[str] = []
        log = XidLog(("cat",), None, fatal.append, "/nonexistent")
        boot = ["[1.0] host kernel: NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95", LINE]
        for number in range(2 * KEPT_LINES):
            boot.append(f"[{10 + number}.0] host kernel: NVRM: Xid (PCI:0000:9b:00): 31, pid={number}, MMU fault")
        for _ in range(2):
            log.poll()
            for text in boot:
                log.feed(text)
            log.close()
            assert log._process is not None
            log._process.wait()
            log.poll()
            log._next = 0.0
        log.feed("[900.0] host kernel: NVRM: Xid (PCI:0000:aa:00): 79, pid=1, GPU has fallen off the bus.")
        return log, fatal

    log, fatal = asyncio.run(work())
    assert [line.split("]")[0] for line in log.fatal] == ["[5.0", "[900.0"]
    assert log.fatal == fatal


def test_a_kernel_log_that_cannot_be_read_is_a_problem_and_no_block() -> None:
    async def work() -> XidLog:
        log = XidLog(("sh", "-c", "echo No permission; exit 1"), None, lambda line: None)
        for _ in range(100):
            log.poll()
            if log.problem:
                break
            await asyncio.sleep(0.05)
        return log

    log = asyncio.run(work())
    assert log.problem == "sh ended with status 1: No permission"
    assert log.settled()
    assert log.reason() == ""
