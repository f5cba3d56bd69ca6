"""Hosts and GPUs become nodes and ranks: which host is the head, which ranks run where, and what cannot work."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Layout:
    """Parallel sizes of one strategy on one topology.

    All are numbers of ranks: tensor (tp), pipeline (pp), data (dp), decode context (dcp) parallel; `dp_local` is the
    number of DP ranks on each host. `expert_parallel` spreads routed experts over tp x dp ranks.
    """

    strategy: str
    tp: int
    pp: int
    dp: int
    dcp: int
    dp_local: int
    expert_parallel: bool

    @property
    def world_size(self) -> int:
        """Number of GPUs used."""
        return self.tp * self.pp * self.dp

    @property
    def label(self) -> str:
        """The usual short name, `TP8+PP2` or `DP16+EP`."""
        if self.dp > 1 or self.strategy == "dp-ep":
            return f"DP{self.dp}" + ("+EP" if self.expert_parallel else "")
        if self.pp > 1:
            return f"TP{self.tp}+PP{self.pp}"
        return f"TP{self.tp}" + (f"+DCP{self.dcp}" if self.strategy == "tp-dcp" else "")


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


def lay_out(
    strategy: str,
    topology: Topology,
    *,
    heads: int,
    dcp: int | None,
    dcp_default: bool,
    expert_parallel: bool,
) -> Layout:
    """Work out the parallel sizes of a strategy on these hosts.

    Args:
        strategy: `tp`, `tp-dcp`, `tp-pp` or `dp-ep`.
        topology: the hosts.
        heads: attention heads of the model; TP must divide them.
        dcp: decode context parallel size asked for, or None for the strategy's own.
        dcp_default: whether the strategy uses DCP of TP's size by itself.
        expert_parallel: whether `dp-ep` spreads experts.

    Raises:
        Refusal: TP not dividing the heads, DCP not dividing TP, DCP with DP.
    """
    count, per_host = topology.hosts, topology.gpus_per_host
    if strategy == "dp-ep":
        if dcp not in (None, 1):
            raise Refusal(
                f"decode_context_parallel_size is {dcp} with strategy {strategy}",
                needed="1: DCP divides TP's GPUs, and TP is 1 here",
                fix="drop decode_context_parallel_size, or take strategy tp-pp or tp-dcp",
            )
        return Layout(strategy, 1, 1, count * per_host, 1, per_host, expert_parallel)
    # PP crosses nodes; TP stays inside NVLink.
    tp, pp = per_host, count if strategy == "tp-pp" else 1
    if heads % tp:
        raise Refusal(
            f"{per_host} GPUs a host give TP{tp}, and the model has {heads} attention heads",
            needed=f"a number of GPUs a host that divides {heads}",
            fix="use fewer GPUs of each host (gpus in the inventory) or strategy dp-ep",
        )
    size = dcp if dcp is not None else (tp if dcp_default else 1)
    if tp % size:
        raise Refusal(
            f"decode_context_parallel_size is {size} with TP{tp}",
            needed=f"a divisor of {tp}: DCP reuses TP's GPUs",
            fix="set decode_context_parallel_size to a divisor, or 1 to turn it off",
        )
    return Layout(strategy, tp, pp, 1, size, 1, False)
