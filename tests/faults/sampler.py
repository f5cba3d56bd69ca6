"""Samples taken again and again in a thread, and every process of a group as they saw it; from /proc alone."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tests.faults.sightings import Key, Sighting

GONE = ("", "Z", "X")
"""States of a process that runs no more."""
YOUNG = 1.0
"""Seconds in which a process's environment is read again: between fork and exec it is still its parent's."""


class Sampler(threading.Thread, ABC):
    """Calls `sample` until `end`.

    Args:
        every: seconds between two samples.
    """

    def __init__(self, every: float) -> None:
        super().__init__(daemon=True)
        self._every = every
        self._over = threading.Event()
        self.samples = 0
        self.longest = 0.0
        """Longest time between two samples, in seconds: how far an end may have been missed."""

    def run(self) -> None:
        before = time.monotonic()
        while not self._over.wait(self._every):
            self.sample()
            self.samples += 1
            now = time.monotonic()
            self.longest, before = max(self.longest, now - before), now

    @abstractmethod
    def sample(self) -> None:
        """Take one sample."""

    def end(self) -> None:
        self._over.set()
        self.join(30)


class Processes(Sampler):
    """Every process of a group, as `sightings.py` judges them."""

    def __init__(self, every: float) -> None:
        super().__init__(every)
        self._seen: dict[Key, Sighting] = {}
        self._alive: set[Key] = set()
        self._lock = threading.Lock()
        # Starts are counted from boot, samples by the monotonic clock: they differ by the time spent asleep.
        self._asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
        self._hertz = os.sysconf("SC_CLK_TCK")

    @abstractmethod
    def pids(self) -> Iterable[tuple[str, int]]:
        """Host and id, as this machine numbers it, of every process there is now."""

    def forget(self) -> None:
        """Drop what is no longer alive, so that one fault's dead do not count in the next."""
        with self._lock:
            self._seen = {key: each for key, each in self._seen.items() if key in self._alive}
            self.longest = 0.0

    @property
    def seen(self) -> list[Sighting]:
        """Everything seen since `forget`."""
        with self._lock:
            return list(self._seen.values())

    @property
    def alive(self) -> list[Sighting]:
        """What the last sample saw."""
        with self._lock:
            return [self._seen[key] for key in self._alive]

    def sample(self) -> None:
        sampled: dict[Key, Sighting] = {}
        for host, pid in self.pids():
            now = time.monotonic()
            state, ticks, parent = stat(pid)
            if state not in GONE:
                sampled[pid, ticks] = self._sighting(host, pid, ticks, parent, now)
        now = time.monotonic()
        with self._lock:
            for key in self._alive - set(sampled):
                self._seen[key] = replace(self._seen[key], ended=now)
            self._seen.update(sampled)
            self._alive = set(sampled)

    def _sighting(self, host: str, pid: int, ticks: int, parent: int, now: float) -> Sighting:
        known = self._seen.get((pid, ticks))
        started = ticks / self._hertz - self._asleep
        # systemd's child bears the name of what it will be in brackets until its exec, which a busy machine puts off.
        settled = known is not None and not known.title.startswith("(") and not known.stands_by
        if known is not None and settled and (known.generation or now - started > YOUNG):
            return replace(known, last=now, ended=None)
        env, title = environment(pid), _title(pid)
        generation, instance = env.get("MUSTER_GENERATION", ""), env.get("MUSTER_INSTANCE", "")
        if not generation:
            # An engine process may write its title over its environment: it is then what its parent was.
            above = next((each for each in self._seen.values() if each.pid == parent and each.generation), None)
            if above is not None:
                generation, instance = above.generation, above.instance
        if known is not None and known.stands_by and generation:
            started = now
        return Sighting(host, pid, ticks, generation, instance, title, started, now)


def stat(pid: int) -> tuple[str, int, int]:
    """State, start in ticks since boot, parent; empty and zeros when it is gone."""
    fields = stat_fields(pid)
    return (fields[0], int(fields[19]), int(fields[1])) if fields else ("", 0, 0)


def stat_fields(pid: int) -> list[str]:
    """What follows the name in /proc/<pid>/stat, the state first; nothing when it is gone. Source: proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time that a process has used; none when it is gone."""
    return sum(map(int, stat_fields(pid)[11:13])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Processes that a process's threads have started and that are there; none when it is gone."""
    pids: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread may end between the two
            pids += [int(word) for word in path.read_text().split()]
    return pids


def environment(pid: int) -> dict[str, str]:
    """What a process was started with; empty when it is gone."""
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(pair.decode("utf-8", "replace").partition("=")[::2] for pair in pairs if b"=" in pair)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()[:300]
    except OSError:
        return ""
