"""Fatal Xids from the kernel's log."""

from __future__ import annotations

import asyncio

from muster.guard.config import FATAL_XIDS
from muster.guard.xids import XidLog


def kernel(seen: set[str] | None = None) -> tuple[XidLog, list[str]]:
    fatal: list[str] = []
    return XidLog((), FATAL_XIDS, seen or set(), fatal.append), fatal


def test_fatal_xids_are_reported_once_and_can_be_acknowledged() -> None:
    log, fatal = kernel()
    line = "[5.0] host kernel: NVRM: Xid (PCI:0000:9b:00): 79, pid='<unknown>', GPU has fallen off the bus."
    for text in ("[1.0] usb 1-1: new device", "[2.0] NVRM: Xid (PCI:0000:9b:00): 31, pid=1, MMU fault", line, line):
        log.feed(text)
    assert fatal == [line]
    assert len(log.lines) == 2
    assert log.reason() == f"fatal Xid: {line}; reset the GPU or reboot, then `resume` on this host"
    seen = log.acknowledge()
    assert log.reason() == ""
    again, fatal = kernel(seen)
    again.feed(line)
    assert (fatal, again.reason()) == ([], "")


def test_a_kernel_log_that_cannot_be_read_is_a_problem_and_no_block() -> None:
    async def work() -> XidLog:
        log = XidLog(("sh", "-c", "echo No permission; exit 1"), FATAL_XIDS, set(), lambda line: None)
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
