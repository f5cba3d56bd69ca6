"""Fatal Xids from the kernel's log: the one GPU fault that no process reports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence

XID = re.compile(r"NVRM: Xid \((?P<device>[^)]{1,40})\): (?P<code>\d{1,4})\b")
RESTART_READER = 10.0
"""Seconds until a log reader that exited with status 0 starts again, as a command that does not follow does."""
RESTART_AFTER_FAILURE = 60.0
QUIET = 0.5
"""The backlog counts as read after this many quiet seconds."""
SETTLE = 5.0
"""Longest wait for the backlog, in seconds: a kernel log may be empty."""
KEPT_LINES = 50


class XidLog:
    """Follows the output of one command (`journalctl -k -b -f --no-tail -o short-monotonic`) for the guard's life.

    A follower costs nothing while the kernel is quiet; reading the whole log every few seconds would.
    """

    def __init__(
        self, argv: Sequence[str], fatal: Sequence[int], seen: set[str], on_fatal: Callable[[str], None]
    ) -> None:
        """`seen`: lines that an operator has acknowledged; they no longer block."""
        self._argv = argv
        self._fatal = frozenset(fatal)
        self._seen = seen
        self._on_fatal = on_fatal
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._last = ""
        self._next = 0.0
        self._begun: float | None = None
        self._heard = 0.0
        self._exited_once = False
        """The reader exited once, so the backlog has been read."""
        self.lines: list[str] = []
        """Every Xid line of this boot, the last KEPT_LINES."""
        self.fatal: list[str] = []
        self.problem = ""

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
        if not self.fatal:
            return ""
        return f"fatal Xid: {self.fatal[0][:200]}; reset the GPU or reboot, then `resume` on this host"

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
        self._rest = b""
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

    def acknowledge(self) -> set[str]:
        """An operator resumed: the fatal lines so far no longer block. Returns every acknowledged line, to be kept."""
        self._seen |= set(self.fatal)
        self.fatal.clear()
        return self._seen

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
        match = XID.search(line)
        if match is None:
            return
        line = line.strip()[:300]
        if line in self.lines:
            return  # A restarted reader repeats the whole boot.
        self.lines = [*self.lines, line][-KEPT_LINES:]
        if int(match["code"]) in self._fatal and line not in self._seen and line not in self.fatal:
            self.fatal.append(line)
            self._on_fatal(line)

    def close(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
