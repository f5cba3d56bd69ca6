"""The guard's timers and bounds, and the hosts of its group: guard.json as types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .host_judge import DEVICE_FIELDS


@dataclass(frozen=True)
class Settings:
    """Timers in seconds, all monotonic. The defaults meet the bounds of the fault matrix."""

    poll_interval: float = 2.0
    """A member reports to the head this often."""
    report_timeout: float = 4.0
    """A report without an answer is sent again after this."""
    silence_timeout: float = 15.0
    """After this much silence a member stops its children, and the head aborts the group."""
    ready_timeout: float = 3600.0
    """From `run` to every DP rank answering: loading a terabyte of weights takes long."""
    stall_timeout: float = 120.0
    """Work in flight and no token for this long is a stall."""
    canary_idle: float = 30.0
    """An idle DP rank gets a canary after this long without proof of life."""
    canary_timeout: float = 60.0
    canary_retry: float = 5.0
    """Pause between a failed canary and the next."""
    canary_strikes: int = 2
    proof_fresh: float = 60.0
    """`/ready` answers 200 while the oldest proof of life is younger than this."""
    metrics_interval: float = 5.0
    metrics_timeout: float = 30.0
    """Long on purpose: a busy API server answers late, and a short timeout would restart healthy groups."""
    drain_seconds: float = 30.0
    """A deliberate stop waits this long for requests in flight."""
    drain_margin: float = 5.0
    """On top of `drain_seconds`, for the engine's own exit."""
    kill_timeout: float = 10.0
    """Bound on waiting for killed processes to disappear; systemd kills what is left."""
    check_interval: float = 2.0
    check_timeout: float = 20.0
    """Bound on one local check: nvidia-smi hangs on a broken GPU."""
    backoff_base: float = 5.0
    backoff_max: float = 300.0
    healthy_after: float = 1800.0
    """A group that was ready for this long starts without backoff again."""
    budget: int = 6
    """Aborts within `budget_window`; one more puts the group into `failed`."""
    budget_window: float = 3600.0
    standby_after: float = 60.0
    """After this long in a generation the next one's process is started, to stand by."""


@dataclass(frozen=True)
class Member:
    """One host of the group, as the plan has it."""

    host: str
    address: str
    node_rank: int
    dp_ranks: tuple[int, ...] = ()
    port: int = 0
    """Where it answers for its own DP ranks; 0 where the head answers for all."""


@dataclass(frozen=True)
class Group:
    """What every guard of the group must agree on."""

    name: str
    digest: str
    engine: str
    head: str
    members: tuple[Member, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(member.host for member in self.members)

    @property
    def dp_ranks(self) -> tuple[int, ...]:
        """Every DP rank of the group; a group without data parallelism is rank 0 alone."""
        return tuple(sorted({rank for member in self.members for rank in member.dp_ranks})) or (0,)


@dataclass(frozen=True)
class Probe:
    """A condition on this host: a TCP address that accepts, or a command that exits 0."""

    tcp: tuple[str, int] | None = None
    command: tuple[str, ...] = ()
    interval: float = 1.0
    timeout: float = 20.0


@dataclass(frozen=True)
class Child:
    """One child process: what the plan adds to the command line."""

    name: str
    env: Mapping[str, str] = field(default_factory=dict)
    wait: tuple[Probe, ...] = ()
    """All must hold before it starts."""
    ready: Probe | None = None
    """Must hold before the next child starts."""
    standby: tuple[str, ...] = ()
    """Modules that a process imports which stands by for the next generation; empty where none does."""


@dataclass(frozen=True)
class KeptWeights:
    """Where the engine's guard finds the daemons whose weights its engine maps."""

    group: str
    """Of the daemons: what their processes carry, and what `muster status` shows."""
    unit: str
    health_port: int
    """Of the launcher, on loopback."""
    sockets: str
    """Directory of the daemons' sockets, named by the key that they were loaded with."""


@dataclass(frozen=True)
class KeptFor:
    """The engine's group, as the guard of the daemons knows it."""

    group: str
    health_port: int
    state_directory: str
    """Of the engine's guard: a hold of that group is one of the weights."""
    sockets: str
    """Directory of the daemons' sockets, named by their key; those beside it are of former keys."""


@dataclass(frozen=True)
class Loading:
    """What this host needs to know to say how long each loader would take: see `loader_choice`."""

    record: str
    """The file with what was measured, beside the directory of the weights' revision and named after it."""
    mapped: int
    """Bytes that `auto` reads on this host: what its ranks keep, by the mapped files."""
    whole: int
    """Bytes that the other loaders read on this host."""
    room: int
    """Bytes of GPU memory that loading may take beyond the weights."""
    names: tuple[str, ...]
    """Loaders that may be chosen, besides `auto`."""
    process: str
    """Name of the child that loads."""
    ranks: str
    """How this group's ranks load, as the record has it: what was measured of another layout says nothing."""


@dataclass(frozen=True)
class Port:
    address: str
    port: int


@dataclass(frozen=True)
class Checks:
    """What must hold on this host before it may join; an empty field checks nothing."""

    gpus: int = 0
    """How many GPUs the group uses."""
    devices: tuple[str, ...] = ()
    """Which ones, by index or UUID; empty takes the first by index."""
    gpu_command: tuple[str, ...] = (
        "nvidia-smi",
        "--query-gpu=" + ",".join(DEVICE_FIELDS),
        "--format=csv,noheader",
    )
    """One line per GPU of the host, with DEVICE_FIELDS."""
    apps_command: tuple[str, ...] = (
        "nvidia-smi",
        "--query-compute-apps=pid,process_name,used_memory,gpu_uuid",
        "--format=csv,noheader",
    )
    """One line per compute process: there must be none before the group starts."""
    beside: str = ""
    """Group whose processes may hold the GPUs before this one starts: the daemons that keep its weights."""
    ports: tuple[Port, ...] = ()
    paths: tuple[str, ...] = ()
    """Files that must exist: the release's stamp, the manifest of the weights."""
    disk: Mapping[str, float] = field(default_factory=dict)
    """Path -> free bytes needed there."""
