"""Whether the firewall of a group's hosts lets the monitor in. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_address, ip_network

from muster.errors import Refusal
from muster.monitoring.targets import ENGINE, GUARD, targets_of
from muster.plan.types import Plan
from muster.spec.settings import Settings

_SETTINGS = {GUARD: "monitor_networks", ENGINE: "client_networks"}


def require_access(plan: Plan, settings: Settings, monitors: Mapping[str, str]) -> None:
    """Refuse monitors that could scrape neither guards nor engines.

    Args:
        plan, settings: of the group.
        monitors: name -> IP address from which it scrapes.

    Raises:
        Refusal: the setting that lacks an address.
    """
    peers = {host.address for host in plan.hosts.values()}
    for kind in targets_of(plan, settings):
        setting = _SETTINGS.get(kind)
        networks = getattr(settings, setting) if setting else None
        for name, address in monitors.items():
            if networks is None or address in peers or _inside(address, networks):
                continue
            raise Refusal(
                f"{name} ({address}) is in no network of {setting}: the hosts drop what it asks the {kind}",
                needed=f"its address in {setting}, and the group deployed with it",
                fix=f'{setting} = [..., "{address}"] in group_data, then muster deploy, then this again',
            )


def require_edge_access(settings: Collection[Settings], monitors: Mapping[str, str]) -> None:
    """Refuse monitors that an edge keeps out, which knows no hosts of the groups but their monitor_networks alone.

    Args:
        settings: of the groups.
        monitors: name -> IP address from which it scrapes.

    Raises:
        Refusal: a monitor in no network.
    """
    networks = [network for each in settings for network in each.monitor_networks]
    for name, address in monitors.items():
        if not _inside(address, networks):
            raise Refusal(
                f"{name} ({address}) is in no network of monitor_networks: the edge drops what it asks for metrics",
                needed="its address in monitor_networks, and deploys/edge.py run with it",
                fix=f'monitor_networks = [..., "{address}"] in group_data, then deploys/edge.py, then this again',
            )


def _inside(address: str, networks: list[str]) -> bool:
    return any(ip_address(address) in ip_network(each) for each in networks)
