"""A host in the sandbox's network that nobody knows, and what it finds open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from muster.sandbox import Sandbox

_LAST = 231
"""Of its address."""
_SCAN = """\
import errno, selectors, socket, sys, time
address, last = sys.argv[1], 65535
ports, waiting, found = iter(range(1, last + 1)), selectors.DefaultSelector(), []
more = True
while more or waiting.get_map():
    while more and len(waiting.get_map()) < 1000:
        port = next(ports, 0)
        if not port:
            more = False
            break
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex((address, port))
        waiting.register(one, selectors.EVENT_WRITE, (port, time.monotonic() + 3))
    for key, _ in waiting.select(0.5):
        if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            found.append(key.data[0])
        waiting.unregister(key.fileobj)
        key.fileobj.close()
    for key in [each for each in waiting.get_map().values() if each.data[1] < time.monotonic()]:
        waiting.unregister(key.fileobj)
        key.fileobj.close()
print(*sorted(found))
"""


@contextmanager
def stranger(box: Sandbox) -> Iterator[str]:
    """Give the name of a network namespace with an address that is in no network of a group's settings."""
    names = box.where.names
    space, cable = f"{names.bridge}-stranger", f"{names.bridge}x"
    address = f"{box.hosts[0].address.rpartition('.')[0]}.{_LAST}"
    _run("ip", "netns", "add", space)
    try:
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _run("ip", "link", "set", cable, "master", names.bridge, "up")
        _run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        _run("ip", "-n", space, "link", "set", "lo", "up")
        _run("ip", "-n", space, "link", "set", "eth0", "up")
        yield space
    finally:
        _run("ip", "netns", "delete", space)


def open_ports(space: str, address: str) -> list[int]:
    """Return the TCP ports, of all there are, that answer a connection from a network namespace."""
    ran = subprocess.run(
        ["ip", "netns", "exec", space, sys.executable, "-c", _SCAN, address],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return [int(port) for port in ran.stdout.split()]


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
