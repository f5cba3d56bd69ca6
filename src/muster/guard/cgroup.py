"""Which processes are below this guard, and how they are killed.

Under systemd those are the processes of the unit's cgroup: v2, or `name=systemd` beside it on a hybrid host. No process
can leave it, whatever it does with sessions and parents. Outside systemd (tests, a guard run by hand) they are the
processes that carry this guard's instance in their environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator

INSTANCE = "MUSTER_INSTANCE"
GENERATION = "MUSTER_GENERATION"


class Fence:
    """The processes of one guard, other than the guard itself and the helpers it names."""

    def __init__(self, unit: str, instance: str, root: str = "/sys/fs/cgroup", proc: str = "/proc") -> None:
        self._proc = proc
        self._mark = f"{INSTANCE}={instance}".encode()
        self._folder = _unit_folder(unit, root, proc)
        self.helpers: set[int] = set()

    @property
    def is_cgroup(self) -> bool:
        return self._folder is not None

    def pids(self) -> list[int]:
        """Every process below this guard, without zombies: they hold nothing."""
        pids = self._in_cgroup(self._folder) if self._folder is not None else self._by_environment()
        mine = {os.getpid(), *self.helpers}
        return sorted(pid for pid in pids if pid not in mine and state(pid, self._proc) not in ("Z", "X", ""))

    async def kill(self, timeout: float) -> list[int]:
        """SIGKILL every process until none is left or `timeout` seconds have passed; returns those left.

        Repeated, since a process that forks meanwhile escapes a single pass. One in uninterruptible sleep stays:
        systemd and the next guard's checks deal with it.
        """
        until = time.monotonic() + timeout
        while True:
            left = self.pids()
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if not left or time.monotonic() >= until:
                return left
            await asyncio.sleep(0.02)

    def describe(self, limit: int = 200) -> list[str]:
        """One line per process: pid, state, resident MiB, title."""
        lines = []
        for pid in self.pids()[:limit]:
            size = _read(f"{self._proc}/{pid}/statm").split()
            resident = int(size[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20 if len(size) > 1 else 0
            lines.append(f"{pid} {state(pid, self._proc)} {resident} MiB {title(pid, self._proc)}")
        return lines

    def _in_cgroup(self, folder: str) -> Iterable[int]:
        for where, _, _ in os.walk(folder):
            for line in _read(os.path.join(where, "cgroup.procs")).split():
                yield int(line)

    def _by_environment(self) -> Iterable[int]:
        return (pid for pid, words in environments(self._proc) if self._mark in words)


class Titles:
    """Watches the engine's own processes by their titles: the oldest of each title must live.

    Only the oldest counts: its forks carry its title too, and may end at any time.
    """

    def __init__(self, prefixes: tuple[str, ...], pids: Callable[[], list[int]], proc: str = "/proc") -> None:
        self._prefixes = prefixes
        self._pids = pids
        self._proc = proc
        self._known: dict[str, tuple[int, int]] = {}
        self._missed: dict[str, int] = {}

    def scan(self) -> str:
        """The title missing in two scans in a row, or empty.

        Twice, because a child that exits by itself reports a better reason than its missing process does.
        """
        alive = {pid: title(pid, self._proc) for pid in self._pids()}
        begun = {pid: started(pid, self._proc) for pid in alive}
        for pid in sorted(alive, key=begun.__getitem__):
            if self._prefixes and alive[pid].startswith(self._prefixes):
                self._known.setdefault(alive[pid], (pid, begun[pid]))
        for name, (pid, since) in self._known.items():
            # Identified by pid and start, since a pid can be reused; not by title, since a process may change it.
            gone = begun.get(pid) != since
            self._missed[name] = self._missed.get(name, 0) + 1 if gone else 0
            if self._missed[name] >= 2:
                return f"{name} (pid {pid})"
        return ""


def environments(proc: str = "/proc") -> Iterator[tuple[int, list[bytes]]]:
    """Every process whose environment this user may read, with its `NAME=value` words."""
    for name in os.listdir(proc):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"{proc}/{name}/environ", "rb") as file:
                yield int(name), file.read().split(b"\0")


def state(pid: int, proc: str = "/proc") -> str:
    """The kernel's letter for a process's state; empty when it is gone."""
    return _stat(pid, proc)[0]


def started(pid: int, proc: str = "/proc") -> int:
    """Its start, in clock ticks since boot; 0 when it is gone."""
    fields = _stat(pid, proc)
    return int(fields[19]) if len(fields) > 19 else 0


def title(pid: int, proc: str = "/proc") -> str:
    """Its command line; only its name, in brackets, while it is in uninterruptible sleep.

    The kernel reads a command line from the process's memory and waits for its lock: a process stuck in a driver
    would block this guard too, and the next one, and neither could report why.
    """
    if state(pid, proc) == "D":
        return "[" + _read(f"{proc}/{pid}/stat").partition("(")[2].rpartition(")")[0] + "]"
    return _read(f"{proc}/{pid}/cmdline").replace("\0", " ").strip()[:200]


def _stat(pid: int, proc: str) -> list[str]:
    # The name is in parentheses and may contain anything; the fields follow its last one.
    return _read(f"{proc}/{pid}/stat").rpartition(")")[2].split() or [""]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _unit_folder(unit: str, root: str, proc: str) -> str | None:
    """The folder of this process's cgroup, if the cgroup is the unit's.

    Only a service's own cgroup will do: the root cgroup holds the whole host, and all of it would be killed.
    """
    if not unit.endswith(".service"):
        return None
    for line in _read(f"{proc}/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        parts = path.strip("/").split("/")
        if unit not in parts:
            continue
        inside = "/".join(parts[: parts.index(unit) + 1])
        if controllers == "":
            places = [root, f"{root}/unified"]
        elif controllers == "name=systemd":
            places = [f"{root}/systemd"]
        else:
            continue
        for place in places:
            folder = f"{place}/{inside}"
            # A hierarchy that lists this very process is the one in use.
            if str(os.getpid()) in _read(f"{folder}/cgroup.procs").split():
                return folder
    return None
