"""Hosts become nodes: which host is the head, and which hosts cannot form one group."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from muster.errors import Refusal
from muster.spec.hardware import Gpu, gpu
from muster.spec.host import HostSpec


@dataclass(frozen=True)
class Node:
    """A host with its place in the group; node rank 0 is the head."""

    host: HostSpec
    node_rank: int

    @property
    def is_head(self) -> bool:
        """Whether this node holds the endpoint."""
        return self.node_rank == 0


@dataclass(frozen=True)
class Topology:
    """Hosts in inventory order. The order is the numbering: adding a host at the end renumbers nobody."""

    nodes: tuple[Node, ...]

    @property
    def head(self) -> Node:
        """The node with the endpoint: the first host of the inventory, never the first to arrive."""
        return self.nodes[0]

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return len(self.nodes)

    @property
    def gpus_per_host(self) -> int:
        """Number of GPUs on each host."""
        return self.nodes[0].host.gpus

    @property
    def gpu(self) -> Gpu:
        """The product all hosts have."""
        return gpu(self.nodes[0].host.gpu)

    def using(self, gpus: int) -> Topology:
        """Return the same hosts with fewer of their GPUs: the first of those that the group has."""
        return Topology(
            tuple(
                replace(node, host=replace(node.host, gpus=gpus, devices=node.host.devices[:gpus]))
                for node in self.nodes
            )
        )


def build_topology(hosts: Sequence[HostSpec]) -> Topology:
    """Number the hosts in inventory order after checking that they can form one group.

    Raises:
        Refusal: no hosts, a host named twice, an address used twice or not an address, unequal GPUs.
    """
    if not hosts:
        raise Refusal("the inventory has no hosts", fix="name at least one host in the inventory")
    for what, values in (("host", [h.name for h in hosts]), ("fabric address", [h.address for h in hosts])):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            owners = ", ".join(h.name for h in hosts if twice[0] in (h.name, h.address))
            raise Refusal(
                f"{what} {twice[0]} stands {Counter(values)[twice[0]]} times in the inventory ({owners})",
                needed=f"each {what} once",
                fix="remove the duplicate line from the inventory",
            )
    for host in hosts:
        gpu(host.gpu, host=host.name)
        if host.gpus < 1:
            raise Refusal(f"{host.name}: gpus is {host.gpus}", needed="at least 1")
        try:
            version = ipaddress.ip_address(host.address).version
        except ValueError:
            raise Refusal(
                f"{host.name}: fabric address '{host.address}' is no IP address",
                needed="the address that peers reach this host at",
                fix="set fabric_address in the inventory",
            ) from None
        if version == 6:
            raise Refusal(
                f"{host.name}: fabric address {host.address} is an IPv6 address",
                needed="IPv4 on the fabric: vLLM's and Ray's addresses between ranks have not been shown with IPv6",
                fix="give the fabric interface an IPv4 address, and set it as fabric_address in the inventory",
            )
    for what in ("gpus", "gpu"):
        counts = Counter(getattr(h, what) for h in hosts)
        if len(counts) > 1:
            usual = counts.most_common(1)[0][0]
            odd = [f"{h.name}: {getattr(h, what)}" for h in hosts if getattr(h, what) != usual]
            raise Refusal(
                f"hosts differ in {'GPU count' if what == 'gpus' else 'GPU product'}: {', '.join(odd)};"
                f" the others have {usual}",
                needed="equal hosts: every rank holds an equal share",
                fix="take the odd host out of the inventory or correct what it says",
            )
    return Topology(tuple(Node(host, rank) for rank, host in enumerate(hosts)))
