"""Which connections the control port holds at one time, and which gives way to a new one. Pure.

Each pool has a bound in all and one per address. An address beyond its own bound loses its own oldest connection. When
the pool is full, the address with most connections loses its oldest: many connections from one place never displace
the single one of a load balancer. IPv6 addresses count by their /64, which one machine may hold whole.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass
class Slots:
    """One pool. `total` and `per_address` are numbers of connections."""

    total: int
    per_address: int
    _held: dict[Hashable, str] = field(default_factory=dict)

    def admit(self, connection: Hashable, address: str) -> list[Hashable]:
        """Hold a connection; returns those that give way, no longer held."""
        source = network_of(address)
        self._held.pop(connection, None)
        evicted = []
        if self._count(source) >= self.per_address:
            evicted.append(self._drop_oldest(source))
        elif len(self._held) >= self.total:
            sources = list(self._held.values())
            evicted.append(self._drop_oldest(max(sources, key=sources.count)))
        self._held[connection] = source
        return evicted

    def release(self, connection: Hashable) -> None:
        self._held.pop(connection, None)

    def __contains__(self, connection: Hashable) -> bool:
        return connection in self._held

    def __len__(self) -> int:
        return len(self._held)

    def _count(self, source: str) -> int:
        return sum(each == source for each in self._held.values())

    def _drop_oldest(self, source: str) -> Hashable:
        oldest = next(connection for connection, each in self._held.items() if each == source)
        del self._held[oldest]
        return oldest


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
