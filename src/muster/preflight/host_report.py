"""Everything one host answered, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.preflight.filters import Filters
from muster.preflight.smi import App, GpuFacts
from muster.preflight.tool_text import DriverLog, NetworkLink, Unreadable

NOT_ASKED = Unreadable("not asked")


@dataclass(frozen=True)
class FabricManager:
    """NVIDIA's Fabric Manager: systemd's view of it and its version."""

    load: str
    active: str
    version: str


@dataclass(frozen=True)
class RdmaPort:
    """One port of an RDMA device."""

    device: str
    port: str
    state: str
    physical: str
    layer: str
    gid_types: tuple[str, ...]
    """Of its global identifiers: `RoCE v2`, `IB/RoCE v1`."""


@dataclass(frozen=True)
class GpuDirect:
    """The facts that decide whether GPU memory can be registered for RDMA."""

    modules: tuple[str, ...]
    driver: str
    kernel: tuple[int, ...] | None


@dataclass(frozen=True)
class System:
    """The operating system, its limits and its memory; sizes in bytes."""

    os: str
    libc: str
    machine: str
    kernel: str
    python: str
    memory: int | None
    shm: int | None
    pid_max: int | None
    nr_open: int | None
    uid: int | None
    """Of the SSH session."""


@dataclass(frozen=True)
class PathFacts:
    """Space and mount of one path, in bytes; `held` is what its files already take."""

    mount: str
    options: tuple[str, ...]
    device: int
    free: int
    held: int


@dataclass(frozen=True)
class Listener:
    """A process that listens on a TCP port."""

    port: int
    process: str
    pid: int | None
    cgroup: str


@dataclass(frozen=True)
class Clock:
    """Two readings of the host's wall clock, and this machine's times around both (seconds)."""

    started: float
    ended: float
    sent: float
    received: float

    @property
    def offset(self) -> tuple[float, float]:
        """How far the host's clock is ahead of this machine's, in seconds: at least, at most."""
        return self.ended - self.received, self.started - self.sent


@dataclass(frozen=True)
class Installed:
    """The engine as installed: versions by name, CUDA of torch, and the result of importing it."""

    versions: Mapping[str, str]
    cuda: str | None
    python: str | None
    imported: Mapping[str, Any] | Unreadable = NOT_ASKED


@dataclass(frozen=True)
class HostReport:
    """Everything one host answered; `unreached` says why there is no answer."""

    host: str
    unreached: str | None = None
    gpus: tuple[GpuFacts, ...] | Unreadable = NOT_ASKED
    unused: tuple[GpuFacts, ...] = ()
    """GPUs of the host that the group does not use; see `chosen_gpus`."""
    apps: tuple[App, ...] | Unreadable = NOT_ASKED
    remapped: Mapping[str, tuple[bool, bool]] | Unreadable = NOT_ASKED
    nvlinks: Mapping[int, tuple[int, int]] | Unreadable = NOT_ASKED
    topology: Mapping[tuple[int, int], str] | Unreadable = NOT_ASKED
    driver_log: DriverLog | Unreadable = NOT_ASKED
    fabric_manager: FabricManager | Unreadable = NOT_ASKED
    rdma: tuple[RdmaPort, ...] | Unreadable = NOT_ASKED
    gpudirect: GpuDirect | Unreadable = NOT_ASKED
    links: tuple[NetworkLink, ...] | Unreadable = NOT_ASKED
    filters: Filters | Unreadable = NOT_ASKED
    systemd: int | Unreadable = NOT_ASKED
    hostname: str = ""
    resolves: tuple[str, ...] | Unreadable = NOT_ASKED
    system: System | Unreadable = NOT_ASKED
    paths: Mapping[str, PathFacts | Unreadable] = field(default_factory=dict)
    listeners: tuple[Listener, ...] | Unreadable = NOT_ASKED
    units: tuple[str, ...] | Unreadable = NOT_ASKED
    """Units of muster's groups that have an engine."""
    clock: Clock | Unreadable = NOT_ASKED
    installed: Installed | Unreadable | None = NOT_ASKED
    """None: nothing is installed at the release's path yet."""
    files: Mapping[str, str | None] = field(default_factory=dict)
    """Path -> sha256 of the file there, None where there is none."""
    revision: str | None = None
    digest: str | None = None
    """The plan's digest in the installed units."""

    @property
    def driver(self) -> str | None:
        """The driver's version, from the first GPU that reports one."""
        gpus = () if isinstance(self.gpus, Unreadable) else self.gpus
        return next((gpu.driver for gpu in gpus if gpu.driver), None)


def unreachable(host: str, why: str) -> HostReport:
    """Return the report of a host that could not be reached."""
    gone = Unreadable("the host was not reached")
    return HostReport(host, unreached=why, gpus=gone, installed=gone)
