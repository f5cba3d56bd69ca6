"""A port for tests that listen."""

from __future__ import annotations

import fcntl
import random
import socket
import tempfile
from pathlib import Path

_REMEMBERED = 2000
_given: dict[int, None] = {}
_record = (Path(tempfile.gettempdir()) / "muster-test-ports").open("ab")
"""A byte of it is locked for each port that a process was given: what has been told of is not listened on yet."""


def free_port() -> int:
    """Return a port that nobody listens on and no test is about to, below those that outgoing connections take.

    One of those could be had by another test's client, or by one of its own, which may even connect to itself while
    nothing listens.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    chosen = random.SystemRandom()
    for _ in range(10_000):
        port = chosen.randrange(first - 8000, first)
        if port not in _given and _is_nobodys(port) and _reserve(port):
            return port
    raise AssertionError(f"no free port below {first}")


def _is_nobodys(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def _reserve(port: int) -> bool:
    """Keep other processes, and this one, from being given a port, until this process ends or has had many more."""
    try:
        fcntl.lockf(_record, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _given[port] = None
    if len(_given) > _REMEMBERED:
        oldest = next(iter(_given))
        del _given[oldest]
        fcntl.lockf(_record, fcntl.LOCK_UN, 1, oldest)
    return True
