"""Follows the kernel's log for lines of the NVIDIA driver: the GPU faults that no process reports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence

from . import host_judge, xids
from .host_judge import Device
from .xids import DriverLine

RESTART_READER = 10.0
"""Seconds until a log reader that exited with status 0 starts again, as a command that does not follow does."""
RESTART_AFTER_FAILURE = 60.0
QUIET = 0.5
"""The backlog counts as read after this many quiet seconds."""
SETTLE = 5.0
"""Longest wait for the backlog, in seconds: a kernel log may be empty."""
KEPT_LINES = 200
"""Beyond that, one line per device and code is kept."""


class XidLog:
    """Follows the output of one command (`journalctl -k -b -f --no-tail -o short-monotonic`) for the guard's life.

    A follower costs nothing while the kernel is quiet; reading the whole log every few seconds would.
    """

    def __init__(
        self,
        argv: Sequence[str],
        resumed: float | None,
        on_fatal: Callable[[str], None],
        marker: str = host_judge.REPAIRED,
    ) -> None:
        """`resumed`: when an operator last resumed after a repair, in seconds of the kernel's clock; earlier lines no
        longer block. `marker`: a file whose modification time says the same."""
        self._argv = argv
        self._resumed = resumed
        self._marker = marker
        self._on_fatal = on_fatal
        self._reported: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._last = ""
        self._next = 0.0
        self._begun: float | None = None
        self._heard = 0.0
        self._exited_once = False
        """The reader exited once, so the backlog has been read."""
        self._newest: float | None = None
        self._replayed_until: float | None = None
        """Kernel time of the newest line when the reader was started again: it repeats the whole boot up to there."""
        self.driver_lines: list[DriverLine] = []
        """The driver's lines since boot."""
        self.unused: Sequence[Device] = ()
        """GPUs of this host that the group does not use: their faults do not block it."""
        self.problem = ""

    @property
    def lines(self) -> list[str]:
        """Every line of an error since boot, as the log has it."""
        return [each.line[:300] for each in self.driver_lines if each.code]

    @property
    def fatal(self) -> list[str]:
        """The lines that block this host, the oldest first."""
        left = xids.standing(self.driver_lines, self.repaired())
        return [each.line[:300] for each in xids.blocking(left, self.unused)]

    def repaired(self) -> float | None:
        """When the last known repair was, in seconds of the kernel's clock."""
        times = [] if self._resumed is None else [self._resumed]
        with contextlib.suppress(OSError):
            times.append(time.monotonic() - (time.time() - os.stat(self._marker).st_mtime))
        return max(times, default=None)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def settled(self) -> bool:
        """Whether the backlog has been read: the log is quiet, or cannot be read."""
        now = time.monotonic()
        if not self._argv or self.problem or self._exited_once:
            return True
        if self._begun is None:
            return False
        return now - self._begun > SETTLE or 0.0 < self._heard < now - QUIET

    def reason(self) -> str:
        """Why this host is blocked, or empty."""
        fatal = self.fatal
        if not fatal:
            return ""
        kind = "SXid" if ": SXid (" in fatal[0] else "Xid"
        fix = xids.kernel_log(self.driver_lines, self.repaired(), self.unused).fix
        return f"fatal {kind}: {fatal[0][:200]}; {fix}"

    def poll(self) -> None:
        """Start the reader if it is not running. Called at every tick."""
        if not self._argv or (self._process is not None and self._process.poll() is None):
            return
        if self._process is not None:
            status = self._process.returncode
            self._next = time.monotonic() + (RESTART_AFTER_FAILURE if status else RESTART_READER)
            self.problem = f"{self._argv[0]} ended with status {status}: {self._last[:200]}" if status else ""
            self._exited_once = True
            self._process = None
        if time.monotonic() < self._next:
            return
        self._rest, self._replayed_until = b"", self._newest
        self._begun = self._begun or time.monotonic()
        try:
            self._process = subprocess.Popen(
                list(self._argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as error:
            self.problem = f"the kernel log cannot be read: {error}"
            self._next = time.monotonic() + RESTART_AFTER_FAILURE
            return
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read, descriptor)

    def acknowledge(self) -> float:
        """An operator resumed after a repair: the lines so far no longer block. Returns that time, to be kept."""
        self._resumed = time.monotonic()
        return self._resumed

    def _read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(descriptor)
            return
        self._heard = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-4096:]
        for line in lines:
            self.feed(line.decode("utf-8", "replace"))

    def feed(self, line: str) -> None:
        """One line of the log."""
        self._last = line
        each = xids.driver_line(line)
        if each is None or each.line in self._reported:
            return
        if any(each.line == known.line for known in self.driver_lines):
            return
        if each.seconds is not None:
            # A replayed line may be one that a later line answered, or that the bound below dropped.
            if self._replayed_until is not None and each.seconds < self._replayed_until:
                return
            self._newest = max(each.seconds, self._newest or each.seconds)
        self.driver_lines.append(each)
        if len(self.driver_lines) > KEPT_LINES:
            self.driver_lines = xids.standing(self.driver_lines)
        if each.line[:300] in self.fatal:
            self._reported.add(each.line)
            self._on_fatal(each.line[:300])

    def close(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
