"""Sees every process of a unit on every host of a sandbox, many times a second, from the machine's own /proc."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from muster.sandbox import Sandbox
from muster.sandbox.machine import cgroup_mounts
from tests.faults.sightings import Key, Sighting

EVERY = 0.05
"""Seconds between two samples."""
YOUNG = 1.0
"""Seconds in which a process's environment is read again: between fork and exec it is still its parent's."""


class Watch(threading.Thread):
    """Samples until `end`. Processes cannot leave their unit's control group, so that is where it looks."""

    def __init__(self, box: Sandbox, unit: str, every: float = EVERY) -> None:
        super().__init__(daemon=True)
        self._every = every
        self._unit = unit
        self._machines = {host.name: box.where.names.machine(host.name) for host in box.hosts}
        self._places: dict[str, list[Path]] = {}
        self._looked: dict[str, float] = {}
        self._seen: dict[Key, Sighting] = {}
        self._alive: set[Key] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.samples = 0
        self.longest = 0.0
        """Longest time between two samples, in seconds: how far an end may have been missed."""
        # Starts are counted from boot, samples by the monotonic clock: they differ by the time spent asleep.
        self._asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
        self._hertz = os.sysconf("SC_CLK_TCK")

    def run(self) -> None:
        before = time.monotonic()
        while not self._over.wait(self._every):
            self._sample()
            now = time.monotonic()
            self.longest, before = max(self.longest, now - before), now

    def end(self) -> None:
        self._over.set()
        self.join(10)

    def forget(self) -> None:
        """Drop what is no longer alive, so that one row's dead do not count in the next."""
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

    def _sample(self) -> None:
        found: dict[Key, Sighting] = {}
        for host in self._machines:
            for pid in self._pids(host):
                now = time.monotonic()
                state, ticks, parent = _stat(pid)
                if state not in ("", "Z", "X"):
                    found[pid, ticks] = self._sighting(host, pid, ticks, parent, now)
        now = time.monotonic()
        with self._lock:
            for key in self._alive - set(found):
                self._seen[key] = replace(self._seen[key], ended=now)
            self._seen.update(found)
            self._alive = set(found)
        self.samples += 1

    def _sighting(self, host: str, pid: int, ticks: int, parent: int, now: float) -> Sighting:
        known = self._seen.get((pid, ticks))
        started = ticks / self._hertz - self._asleep
        if known is not None and (known.generation or now - started > YOUNG):
            return replace(known, last=now, ended=None)
        env, title = _environment(pid), _title(pid)
        generation, instance = env.get("MUSTER_GENERATION", ""), env.get("MUSTER_INSTANCE", "")
        if not generation:
            # An engine process may write its title over its environment: it is then what its parent was.
            above = next((each for each in self._seen.values() if each.pid == parent and each.generation), None)
            if above is not None:
                generation, instance = above.generation, above.instance
        return Sighting(host, pid, ticks, generation, instance, title, started, now)

    def _pids(self, host: str) -> list[int]:
        pids = []
        for place in self._found(host):
            try:
                pids += [int(word) for word in (place / "cgroup.procs").read_text().split()]
            except OSError:
                self._places.pop(host, None)
        return pids

    def _found(self, host: str) -> list[Path]:
        """Where the unit's control group is now; a host that boots anew makes it anew."""
        now = time.monotonic()
        if host not in self._places and now - self._looked.get(host, 0.0) > 0.2:
            self._looked[host] = now
            places = []
            for mount in cgroup_mounts():
                for where, _, _ in os.walk(mount / "muster-sandbox" / self._machines[host]):
                    if f"/{self._unit}" in where:
                        places.append(Path(where))
            if places:
                self._places[host] = places
        return self._places.get(host, [])


def everywhere(box: Sandbox) -> Mapping[str, set[str]]:
    """Host to every generation that any process on it carries, unit or not: read from all of /proc, once."""
    machines = {box.where.names.machine(host.name): host.name for host in box.hosts}
    found: dict[str, set[str]] = {host.name: set() for host in box.hosts}
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            groups = (entry / "cgroup").read_text()
        except OSError:
            continue
        host = next((name for machine, name in machines.items() if f"/{machine}/" in groups), None)
        generation = _environment(pid).get("MUSTER_GENERATION") if host else None
        if host and generation and _stat(pid)[0] not in ("", "Z", "X"):
            found[host].add(generation)
    return found


def _stat(pid: int) -> tuple[str, int, int]:
    """State, start in ticks since boot, parent; empty and zeros when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19]), int(fields[1])
    except (OSError, IndexError):
        return "", 0, 0


def _environment(pid: int) -> dict[str, str]:
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
