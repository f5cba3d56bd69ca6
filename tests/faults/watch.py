"""Sees every process of a unit on every host of a sandbox, many times a second, from the machine's own /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from muster.sandbox import Sandbox
from muster.sandbox.nspawn_host import cgroup_mounts
from tests.faults.sampler import GONE, Processes, environment, stat

EVERY = 0.05
"""Seconds between two samples."""


class Watch(Processes):
    """The processes of a unit: they cannot leave its control group, so that is what it reads."""

    def __init__(self, box: Sandbox, unit: str, every: float = EVERY) -> None:
        super().__init__(every)
        self._unit = unit
        self._machines = {host.name: box.where.names.machine(host.name) for host in box.hosts}
        self._places: dict[str, list[Path]] = {}
        self._looked: dict[str, float] = {}

    def pids(self) -> Iterator[tuple[str, int]]:
        for host in self._machines:
            for place in self._found(host):
                try:
                    words = (place / "cgroup.procs").read_text().split()
                except OSError:
                    self._places.pop(host, None)
                    continue
                for word in words:
                    yield host, int(word)

    def _found(self, host: str) -> list[Path]:
        """Where the unit's control group is now; a host that reboots creates it again."""
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
    generations: dict[str, set[str]] = {host.name: set() for host in box.hosts}
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            groups = (entry / "cgroup").read_text()
        except OSError:
            continue
        host = next((name for machine, name in machines.items() if f"/{machine}/" in groups), None)
        generation = environment(pid).get("MUSTER_GENERATION") if host else None
        if host and generation and stat(pid)[0] not in GONE:
            generations[host].add(generation)
    return generations
