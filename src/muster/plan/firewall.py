"""Who may open connections to a host's ranks: ports by name and audience. Pure; the ruleset is a template."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_network

from muster.plan import command_lines
from muster.plan.group import Group
from muster.plan.render import render
from muster.plan.topology import Node
from muster.plan.types import Audience, Firewall, Opening

# The engine, Ray and NCCL also listen on ports that the kernel picks. Linux picks from 32768 on by default; a host with
# another net.ipv4.ip_local_port_range that starts lower is preflight's to name.
FIRST_EPHEMERAL = 32768


def firewall_of(group: Group, node: Node) -> Firewall:
    """Return what one host of a group lets in."""
    return Firewall(
        table=f"muster-{group.name}",
        unit=group.firewall_unit,
        path=f"{group.config}/firewall.nft",
        peers=group.peers,
        clients=tuple(group.settings.client_networks),
        monitors=tuple(group.settings.monitor_networks),
        openings=openings(group, node),
    )


def ruleset(group: Group, node: Node) -> str:
    """Return the nftables file of one host.

    Groups that share a host share the engine's user: where their peers differ, each closes the ports that the kernel
    picks to the peers of the other.
    """
    return _ruleset(group.name, firewall_of(group, node))


@lru_cache(maxsize=16)
def _ruleset(group: str, firewall: Firewall) -> str:
    audiences = {"peers": firewall.peers, "clients": firewall.clients, "monitors": firewall.monitors}
    sets = [
        (audience, version, [one for one in networks if ip_network(one).version == version])
        for audience, networks in audiences.items()
        for version in (4, 6)
    ]
    opened = [(audience, [(o.first, o.last) for o in firewall.ports(audience)]) for audience in ("clients", "monitors")]
    return render(
        "nftables.conf.j2",
        {
            "group": group,
            "unit": firewall.unit,
            "table": firewall.table,
            "sets": sets,
            "opened": [(audience, ports) for audience, ports in opened if ports],
            "named": [(opening.first, opening.last) for opening in firewall.openings],
            "first_ephemeral": FIRST_EPHEMERAL,
        },
    )


def reach(firewall: Firewall) -> str:
    """Return one line for people: who can reach which ports of the head."""
    who = ["the group's own hosts (every port)"]
    if firewall.clients:
        who.append(f"{', '.join(firewall.clients)} (the API)")
    if firewall.monitors:
        who.append(f"{', '.join(firewall.monitors)} (/ready, /status and /metrics)")
    return "; ".join(who) + ("" if firewall.clients else "; no clients: client_networks is empty")


def openings(group: Group, node: Node) -> tuple[Opening, ...]:
    """Return every port with a name that processes of a host bind, and who may reach it."""
    settings, named = group.settings, list[Opening]()

    def open_to(audience: Audience, name: str, first: int, last: int | None = None) -> None:
        named.append(Opening(first, last or first, audience, name))

    if group.answers(node):
        open_to("clients", "port", settings.port)
    if node.is_head and group.layout.dp > 1:
        open_to("peers", "rpc_port", settings.rpc_port)
    if group.uses_ray:
        if node.is_head:
            open_to("peers", "ray_port", settings.ray_port)
        workers = {flag: port for flag, port in command_lines.RAY_PORTS.items() if "worker" in flag}
        for flag, port in command_lines.RAY_PORTS.items():
            if flag not in workers:
                open_to("peers", f"Ray's {flag}", port)
        open_to("peers", "Ray's workers", min(workers.values()), max(workers.values()))
    elif node.is_head and group.layout.spans_hosts:
        open_to("peers", "master_port", settings.master_port)
    if node.is_head and group.guarded:
        open_to("monitors", "control_port", settings.control_port)
    if settings.keep_weights:
        first = settings.keep_weights_port
        if node.is_head:
            open_to("monitors", "keep_weights_port", first)
            open_to("peers", "keep_weights_port + 1", first + 1)
            open_to("peers", "keep_weights_port + 2", first + 2)
        open_to("peers", "keep_weights_port + 3", first + 3)
    return tuple(named)
