"""The plan: what every host of a group gets, as text, and the order of bring-up. `make` builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from muster.guard.endpoint_kinds import COMPLETIONS, KINDS, EndpointKind
from muster.on_host.in_words import size
from muster.on_host.whole_files import text_sha256
from muster.plan.cold_load import ColdLoad
from muster.plan.gpu_memory import Memory
from muster.plan.loaders import Choice

Audience = Literal["clients", "monitors", "peers"]


@dataclass(frozen=True)
class Process:
    """One long-running child on one host: the literal command, as one would type it, and its environment."""

    name: str
    """`ray`, `vllm`, or `weights` for what keeps them."""
    argv: tuple[str, ...]
    env: Mapping[str, str]
    decided: tuple[str, ...] = ()
    """The command with the plan's own words alone, without recipe, settings and `extra_args`; () for Ray.

    The installed parser must read the same from both for everything that the plan decides.
    """


@dataclass(frozen=True)
class File:
    """A text file as it must be on a host."""

    text: str
    mode: str = "644"
    owner: str = "root"
    group: str = "root"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return text_sha256(self.text)


@dataclass(frozen=True)
class Release:
    """One installed engine: the path of its virtual environment and what uv installs there."""

    id: str
    path: str
    """Absolute path of the virtual environment on the hosts: `<root>/engines/<id>`."""
    managed: bool
    """False when the user brings a virtual environment (`engine_path`); it is then checked, never installed."""
    python: str
    requirements: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    install_args: tuple[str, ...] = ()
    """Arguments of `uv pip install` that name indexes, find-links and the torch backend."""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Opening:
    """Ports that one audience may reach; peers and the host itself reach every port of the group.

    Args:
        first, last: TCP ports, both included.
        audience: `clients` (client_networks), `monitors` (monitor_networks) or `peers` (the group's hosts).
        name: of the setting or listener, for messages.
    """

    first: int
    last: int
    audience: Audience
    name: str

    @property
    def range(self) -> str:
        """Its ports as text: `8000`, or `29600-29607`."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def overlaps(self, first: int, last: int) -> bool:
        """Whether any port from first to last is one of these."""
        return self.first <= last and first <= self.last


@dataclass(frozen=True)
class Firewall:
    """What one host lets in for one group.

    Args:
        table: name of the nftables table (family inet) that holds nothing else.
        unit: the systemd unit that loads it, and removes it when no unit of the group needs it.
        path: of the ruleset on the host.
        peers, clients, monitors: networks by audience; nobody where empty.
        openings: the ports that have names. All ports from `firewall.FIRST_EPHEMERAL` on are for peers.
    """

    table: str
    unit: str
    path: str
    peers: tuple[str, ...]
    clients: tuple[str, ...]
    monitors: tuple[str, ...]
    openings: tuple[Opening, ...]

    def ports(self, audience: Audience) -> tuple[Opening, ...]:
        """Return what one audience may reach besides peers."""
        return tuple(opening for opening in self.openings if opening.audience == audience)


@dataclass(frozen=True)
class HostPlan:
    """All that one host gets."""

    name: str
    role: str
    """`head`, `headless`, `ray-worker`, or `serving`: answers for its own DP ranks beside the head."""
    node_rank: int
    address: str
    interface: str | None
    gpu: str
    gpus: int
    dp_ranks: tuple[int, ...]
    processes: tuple[Process, ...]
    files: Mapping[str, File]
    units: tuple[str, ...]
    """Unit names on this host, in start order."""
    ports: tuple[int, ...]
    """TCP ports that this host's processes bind; a foreign process on one of them is refused."""
    firewall: Firewall
    """Who may reach which of them."""
    devices: tuple[str, ...] = ()
    """Which of the host's GPUs the group uses, by index or UUID; empty takes the first by index."""
    env: tuple[tuple[str, str], ...] = ()
    """Environment of its ranks that differs from other hosts'."""
    weights: Process | None = None
    """What keeps the weights on this host's GPUs, in a unit beside; None where the engine loads them itself."""
    beside: tuple[str, ...] = ()
    """Units that the ranks' unit starts and that live on without it; they carry a digest of their own."""

    @property
    def all_units(self) -> tuple[str, ...]:
        """Every unit of the group on this host."""
        return (*self.beside, *self.units)

    @property
    def gpu_names(self) -> tuple[str, ...]:
        """The GPUs that the group uses, by index or UUID as the inventory names them."""
        return self.devices or tuple(str(index) for index in range(self.gpus))

    @property
    def answers(self) -> bool:
        """Whether the API has an endpoint here."""
        return self.role in ("head", "serving")


@dataclass(frozen=True)
class Check:
    """A question that one host asks until it is answered: the layer is up when every check passes.

    Args:
        host: the host that asks.
        kind: `http` (the URL answers 200), `tcp` (`address:port` accepts), `command` (the argv exits with 0).
        target: URL, `address:port` or the argv.
        text: what is awaited, in words, for progress lines: "the head answers /health".
    """

    host: str
    kind: Literal["http", "tcp", "command"]
    target: str | tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Step:
    """One layer of bring-up: units that start together, and what must then answer before the next layer."""

    text: str
    units: Mapping[str, tuple[str, ...]]
    """Host -> units it starts in this layer."""
    checks: tuple[Check, ...] = ()
    order: tuple[tuple[str, ...], ...] = ()
    """Layers of `<host>:<process>` that come up in this step, one after the other. Several where guards start Ray."""


@dataclass(frozen=True)
class Secret:
    """A file with a secret that is equal on every host of the group; its content never enters a plan or digest.

    Args:
        path: absolute path on the hosts.
        source: file on the control machine that holds it; None makes 32 random bytes (hex) once and keeps them.
        kind: what it is: such random bytes, the API key, or the engine's secret variables.
    """

    path: str
    source: str | None = None
    kind: Literal["random", "api key", "environment"] = "random"
    mode: str = "600"
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True)
class WeightsSource:
    """Where a group's weights come from.

    Args:
        kind: `staged` (to one host, from there to the others), `download` (by every host's engine, while it starts),
            `cache` (of the hub, on every host), `directory` (on every host), or `dummy` (none).
        model: its name, or a directory.
        bytes: on disk, of one copy; 0 when unknown.
        exact: whether the pin says so; else worked out from the model's shape.
        origin: `weights_source` of what is staged.
        cache: directory of the hub's cache.
        ready_timeout: seconds from the start until the group must be ready.
    """

    kind: Literal["staged", "download", "cache", "directory", "dummy"]
    model: str
    bytes: int = 0
    exact: bool = False
    origin: str = ""
    cache: str = ""
    ready_timeout: int = 0

    @property
    def gbit_per_s(self) -> float:
        """What each host must receive to have one copy when the deadline ends, in 10^9 bits a second."""
        return 8 * self.bytes / max(1, self.ready_timeout) / 1e9

    def line(self, hosts: int) -> str:
        """Return it in one line.

        Args:
            hosts: of the group.
        """
        amount = f"{'' if self.exact else 'about '}{size(self.bytes)}" if self.bytes else "an unknown size"
        if self.kind == "dummy":
            return "none are loaded (--load-format dummy)"
        if self.kind == "directory":
            return f"{amount} from {self.model} on every host; nothing is downloaded"
        if self.kind == "cache":
            return f"{amount} from the hub's cache on every host ({self.cache}); nothing is downloaded"
        if self.kind == "staged":
            others = f", from there to the other {hosts - 1}" if hosts > 1 else ""
            return f"{amount} from {self.origin} to one host{others}, before ranks stop and without a deadline"
        needed = f"{self.gbit_per_s:.1f}" if self.gbit_per_s >= 0.1 else "less than 0.1"
        return (
            f"{amount} downloaded by each host for itself, {hosts} time{'s' * (hosts > 1)}, inside ready_timeout"
            f" ({self.ready_timeout} s): {needed} Gbit/s at each; to bring them before: weights_source,"
            " muster stage"
        )


@dataclass(frozen=True)
class Plan:
    """The whole group: every host, the order, the digest that each unit carries."""

    group: str
    recipe: str
    strategy: str
    label: str
    model: str
    served_model_name: str
    vllm_version: str
    digest: str
    hosts: Mapping[str, HostPlan]
    release: Release
    warnings: tuple[str, ...] = ()
    refused: str | None = None
    """Why no deploy brings this plan to a host, with what to do; the plan can still be looked at."""
    steps: tuple[Step, ...] = ()
    """The layers of bring-up, in order; the last step's checks say that the group is ready."""
    secrets: tuple[Secret, ...] = ()
    endpoint: str = ""
    """Base URL of the API for clients: `http://<head address>:<port>`."""
    local_endpoint: str = ""
    """Base URL of the API as the head itself reaches it."""
    endpoint_kind: str = COMPLETIONS
    """What the model answers, by its name in the guard's `endpoint_kinds`."""
    tool_calling: bool = False
    sequences: int = 1
    """Requests that the engine runs at once on each DP rank; it queues the others."""
    ready_timeout: int = 3600
    """Seconds from the start of the first layer until the endpoint must answer."""
    drain_seconds: int = 0
    """How long a deliberate stop waits for requests in flight."""
    heals: bool = False
    """Whether the units bring the whole group back together after a death (the guard); plain units only themselves."""
    memory: Memory | None = None
    """What one GPU must hold; None when the model's shape is not known."""
    weight_bytes: int = 0
    """Roughly how much disk the model takes."""
    profile: str = ""
    """Which of the strategy's profiles; empty where it has none."""
    serves: str = ""
    """What this plan serves, in one line: context, requests at once, tool calls, beside what the cache holds."""
    weights: WeightsSource | None = None
    """Where the weights come from; the digest leaves it out."""
    load: ColdLoad | None = None
    """What each host reads of weights on its disk when the engine starts; the digest leaves it out."""
    loaders: Choice | None = None
    """What the head chooses a loader from at each start; the digest leaves all but the guards' part of it out."""
    cuda_variant: str | None = None
    """CUDA variant of the engine (`cu130`, `cu129`, `cpu`); None where the user's own engine or index decides."""
    cuda_variant_assumed: bool = False
    """No setting names the variant, and no driver was asked: a deploy may take another."""

    @property
    def order(self) -> tuple[tuple[str, ...], ...]:
        """Layers of `<host>:<process>`; a layer starts when the one before it is up."""
        return tuple(layer for step in self.steps for layer in step.order)

    @property
    def api_key_path(self) -> str | None:
        """Where the API key is on the hosts, or None where the API asks for none."""
        return next((secret.path for secret in self.secrets if secret.kind == "api key"), None)

    @property
    def kind(self) -> EndpointKind:
        """What the model answers, and how it is asked."""
        return KINDS[self.endpoint_kind]

    @property
    def hybrid(self) -> bool:
        """Whether every host answers for its own DP ranks alone."""
        return any(host.role == "serving" for host in self.hosts.values())

    @property
    def ranks_behind(self) -> dict[str, int]:
        """Host with an endpoint -> DP ranks that it sends requests to."""
        every = len({rank for host in self.hosts.values() for rank in host.dp_ranks})
        return {host.name: len(host.dp_ranks) if self.hybrid else every for host in self.hosts.values() if host.answers}

    @property
    def requests_at_once(self) -> dict[str, int]:
        """Host with an endpoint -> requests that its engine runs at once, by the limits in its flags."""
        return {host: self.sequences * ranks for host, ranks in self.ranks_behind.items()}

    @property
    def head(self) -> HostPlan:
        """The host with the endpoint."""
        return next(host for host in self.hosts.values() if host.node_rank == 0)
