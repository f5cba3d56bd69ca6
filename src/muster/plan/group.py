"""What all hosts of a group share while their files are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import collapse_addresses, ip_address, ip_network

from muster.guard.group_settings import Loading
from muster.on_host import places
from muster.plan.layout import Layout
from muster.plan.topology import Node, Topology
from muster.plan.types import Release
from muster.spec.settings import Settings


def stack_directory(group: str) -> str:
    """Return where the engine's own watchdog writes stacks: tmpfs, which the unit makes and the guard reads."""
    return f"{places.run(group)}/stacks"


@dataclass(frozen=True)
class Group:
    """One group: its names, its sizes, its release, and the names that follow from them."""

    name: str
    title: str
    recipe: str
    strategy: str
    served_model_name: str
    endpoint: str
    """What the model answers, by its name in the guard's `endpoint_kinds`."""
    topology: Topology
    layout: Layout
    settings: Settings
    release: Release
    own_files: Mapping[str, str] = field(default_factory=dict)
    """Path on the hosts -> text of the recipe's files that the command line names."""
    loading: Loading | None = None
    """What the guards choose a loader from; None where the weights are loaded as vLLM does by itself."""

    @property
    def config(self) -> str:
        """Directory of the group's files on a host."""
        return places.config(self.name)

    @property
    def guarded(self) -> bool:
        """Whether the guard runs the ranks, rather than one plain unit per process."""
        return self.settings.supervisor == "guard"

    @property
    def guard_unit(self) -> str:
        """The one unit of a guarded host."""
        return f"muster-{self.name}.service"

    @property
    def firewall_unit(self) -> str:
        """The unit that admits peers, clients and monitors to the group's ports, and nobody else."""
        return places.firewall_unit(self.name)

    @property
    def weights_group(self) -> str:
        """What the daemons that keep the weights are called: to their guards, in status and in metrics."""
        return places.weights_group(self.name)

    @property
    def weights_unit(self) -> str:
        """The unit beside the guard's whose processes keep the weights on the GPUs."""
        return places.weights_unit(self.name)

    @property
    def weights_health_port(self) -> int:
        """The port at which a host's launcher says that all of its daemons serve; on loopback."""
        return self.settings.keep_weights_port + 3

    @property
    def uses_ray(self) -> bool:
        """Whether Ray carries the engine across hosts."""
        return self.layout.spans_hosts and self.settings.executor == "ray"

    def answers(self, node: Node) -> bool:
        """Whether a host has an endpoint: the head, or every host where each answers for its own DP ranks."""
        return node.is_head or self.layout.load_balancing == "hybrid"

    @property
    def stop_seconds(self) -> int:
        """Seconds until systemd kills what is left after a stop: drain time and half a minute."""
        return self.settings.drain_seconds + 30

    @property
    def fetches(self) -> bool:
        """Whether the engine fetches the weights itself, and its unit must therefore reach the hub."""
        return not (self.settings.offline or (self.settings.model or "").startswith("/"))

    @cached_property
    def peers(self) -> tuple[str, ...]:
        """The hosts' own addresses as the fewest networks: a unit of a thousand hosts stays readable."""
        addresses = [ip_address(node.host.address) for node in self.topology.nodes]
        by_version = [[ip_network(a) for a in addresses if a.version == version] for version in (4, 6)]
        return tuple(
            str(network.network_address if network.num_addresses == 1 else network)
            for networks in by_version
            for network in collapse_addresses(networks)  # type: ignore[type-var]
        )

    def unit_of(self, process: str) -> str:
        """Return the unit a process runs in: the guard's, or `muster-<group>-<process>.service`."""
        return self.guard_unit if self.guarded else f"muster-{self.name}-{process}.service"

    def dp_ranks(self, node: Node) -> tuple[int, ...]:
        """Return the DP ranks that live on a host; without data parallel, rank 0 answers on the head."""
        if self.layout.dp > 1:
            local = self.layout.dp_local
            return tuple(range(node.node_rank * local, (node.node_rank + 1) * local))
        return (0,) if node.is_head else ()

    def credential(self, name: str, process: str) -> str:
        """Return where a process finds a credential of its unit."""
        return f"/run/credentials/{self.unit_of(process)}/{name}"

    def ray_question(self, unit: str | None = None) -> tuple[str, ...]:
        """Return environment and command that ask whether every GPU has joined Ray; seconds to wait come last.

        Args:
            unit: ask from inside this unit, with its credential; otherwise as root, with the file itself.
        """
        head, config = self.topology.head.host.address, self.config
        token = f"/run/credentials/{unit}/ray-token" if unit else f"{config}/ray-token"
        env = (f"RAY_ADDRESS={head}:{self.settings.ray_port}", "RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN_PATH={token}")
        return (*env, *self.ray_command)

    @property
    def ray_command(self) -> tuple[str, ...]:
        """The command that succeeds once every GPU has joined Ray; seconds to wait come last."""
        return (f"{self.release.path}/bin/python", f"{self.config}/ray_ready.py", str(self.layout.world_size))
