"""Hosts that are only network namespaces on one bridge, each with a link of limited rate.

Needs root and tc.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BURST = "128kb"
LATENCY = "50ms"
"""Longest wait in a link's queue; a real switch port holds no more."""


@dataclass(frozen=True)
class Link:
    """One host of the bench: a namespace with one address."""

    namespace: str
    address: str
    cable: str

    def argv(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs a command on this host."""
        return ["ip", "netns", "exec", self.namespace, *argv]

    def limit(self, mbit: float) -> None:
        """Limit what leaves and what reaches the host, in Mbit/s each way."""
        queue = ["root", "tbf", "rate", f"{mbit}mbit", "burst", BURST, "latency", LATENCY]
        _run("tc", "qdisc", "replace", "dev", self.cable, *queue)
        _run(*self.argv(["tc", "qdisc", "replace", "dev", "eth0", *queue]))


@contextlib.contextmanager
def links(count: int, mbit: float, *, name: str = "mfo", network: str = "10.213.77") -> Iterator[list[Link]]:
    """Give hosts joined by a bridge, and take all of it away again.

    Args:
        count: number of hosts.
        mbit: rate of each link, in Mbit/s each way.
        name: prefix of namespaces, cables and the bridge (at most 8 letters).
        network: first three numbers of a /24 that the machine does not use.
    """
    bridge = f"{name}br"
    hosts = [Link(f"{name}{n}", f"{network}.{n + 10}", f"{name}v{n}") for n in range(count)]
    _clear(bridge, hosts)
    try:
        _run("ip", "link", "add", bridge, "type", "bridge")
        _run("ip", "address", "add", f"{network}.1/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        for host in hosts:
            _run("ip", "netns", "add", host.namespace)
            cable = ["ip", "link", "add", host.cable, "type", "veth", "peer", "name", "eth0", "netns", host.namespace]
            _run(*cable)
            _run("ip", "link", "set", host.cable, "master", bridge, "up")
            _run(*host.argv(["ip", "address", "add", f"{host.address}/24", "dev", "eth0"]))
            _run(*host.argv(["ip", "link", "set", "eth0", "up"]))
            _run(*host.argv(["ip", "link", "set", "lo", "up"]))
            host.limit(mbit)
        yield hosts
    finally:
        _clear(bridge, hosts)


def _clear(bridge: str, hosts: Sequence[Link]) -> None:
    for host in hosts:
        subprocess.run(["ip", "netns", "delete", host.namespace], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", host.cable], capture_output=True, check=False)
    subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"`{' '.join(argv)}` ended with {done.returncode}: {done.stderr.strip()}")
