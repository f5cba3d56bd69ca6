"""A firewall for one port of metrics: a ruleset, and the unit that loads it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from muster.on_host import places
from muster.plan.render import render
from muster.plan.types import File


@dataclass(frozen=True)
class PortFirewall:
    """Who may read metrics at one port of a host.

    Args:
        unit: that loads the ruleset.
        table: of nftables.
        ruleset: its path.
        guarded: unit that listens on the port.
        required: whether that unit does not start without it.
    """

    unit: str
    table: str
    ruleset: str
    guarded: str
    required: bool

    def files(self, port: int, networks: Iterable[str]) -> dict[str, File]:
        """Return path -> file.

        Args:
            port: that is closed to all others.
            networks: IP addresses and networks from which it is read.
        """
        values = {
            "unit": self.unit,
            "table": self.table,
            "ruleset": self.ruleset,
            "guarded": self.guarded,
            "required": self.required,
        }
        ruleset = render("port_firewall.nft.j2", {**values, "port": port, "monitors": _by_version(networks)})
        return {
            self.ruleset: File(ruleset),
            places.unit(self.unit): File(render("port_firewall.service.j2", values)),
        }


def _by_version(networks: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return nftables' word for each version and its networks: none of one set may overlap."""
    given = [ip_network(each) for each in networks]
    four = collapse_addresses(each for each in given if isinstance(each, IPv4Network))
    six = collapse_addresses(each for each in given if isinstance(each, IPv6Network))
    found = [("ip", [_written(each) for each in four]), ("ip6", [_written(each) for each in six])]
    return [(word, some) for word, some in found if some]


def _written(network: IPv4Network | IPv6Network) -> str:
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if single else network)
