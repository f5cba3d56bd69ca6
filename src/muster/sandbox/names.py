"""Names and addresses of a sandbox: what is called what on the machine, and which addresses its hosts get."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from muster.errors import Refusal

SUPERNET = "10.77.0.0/16"
"""Default range that /24 networks are taken from; `MUSTER_SANDBOX_NETWORK` replaces it."""

INTERFACE = "fabric0"
"""The hosts' one network interface."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,22}[a-z0-9])?")
_FIRST_HOST = 11
MAX_HOSTS = 64


@dataclass(frozen=True)
class Names:
    """What one sandbox is called outside its hosts. Interface names hold 15 characters: a token."""

    token: str

    @property
    def bridge(self) -> str:
        """Network bridge, and name of the nftables table."""
        return f"mst{self.token}"

    def veth(self, index: int) -> str:
        """The machine's end of host number `index`'s cable."""
        return f"mst{self.token}h{index}"

    def machine(self, host: str) -> str:
        """Name of a host's network namespace, control group and nspawn machine."""
        return f"mst{self.token}-{host}"


def names(directory: str, name: str) -> Names:
    """Return the names of the sandbox `name` kept under `directory`; two state directories never collide."""
    return Names(hashlib.sha256(f"{directory}\0{name}".encode()).hexdigest()[:6])


def check_name(name: str) -> str:
    """Return the sandbox's name if it can name directories and units.

    Raises:
        Refusal: anything else.
    """
    if not _NAME.fullmatch(name):
        raise Refusal(
            f"sandbox name '{name}' cannot be used",
            needed="lower-case letters, digits and dashes, beginning with a letter, at most 24",
        )
    return name


def host_name(index: int) -> str:
    """Return the name of host number `index` (from 0): node0, node1, …"""
    return f"node{index}"


def host_address(network: str, index: int) -> str:
    """Return the address of host number `index` (from 0) in the sandbox's /24."""
    return str(ipaddress.ip_network(network).network_address + _FIRST_HOST + index)


def gateway(network: str) -> str:
    """Return the machine's own address in the sandbox's network."""
    return str(ipaddress.ip_network(network).network_address + 1)


def mac(address: str) -> str:
    """Return a locally administered hardware address made from an IPv4 address, the same at every start."""
    return "02:4d:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def free_network(supernet: str, taken: Iterable[str]) -> str:
    """Return the first /24 of `supernet` that overlaps none of the networks in `taken`.

    Raises:
        Refusal: the range is no IPv4 range of at least a /24, or is full.
    """
    try:
        whole = ipaddress.IPv4Network(supernet)
    except ValueError as error:
        raise Refusal(
            f"MUSTER_SANDBOX_NETWORK={supernet} is not an IPv4 network ({error})",
            needed="a range such as 10.77.0.0/16",
        ) from None
    if whole.prefixlen > 24:
        raise Refusal(f"{supernet} is too small", needed="at least a /24, since each sandbox takes one")
    used = [ipaddress.IPv4Network(entry, strict=False) for entry in taken]
    for candidate in whole.subnets(new_prefix=24):
        if not any(candidate.overlaps(other) for other in used):
            return str(candidate)
    raise Refusal(
        f"no free /24 is left in {supernet}",
        needed="a network that no interface, route or other sandbox of this machine uses",
        fix="set MUSTER_SANDBOX_NETWORK to another private range",
    )
