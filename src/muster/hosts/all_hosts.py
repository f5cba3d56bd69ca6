"""Work on every host at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from gevent.pool import Pool
from pyinfra.api.host import Host
from pyinfra.api.state import State

AT_ONCE = 64

Result = TypeVar("Result")


def each(hosts: Iterable[Host], work: Callable[[Host], Result]) -> dict[str, Result]:
    """Do something with every host at once; host -> result, in the given order."""
    hosts = list(hosts)
    pool = Pool(min(AT_ONCE, max(1, len(hosts))))
    return dict(zip([host.name for host in hosts], pool.map(work, hosts), strict=True))


def hosts_of(state: State) -> dict[str, Host]:
    """Return inventory name -> host."""
    return {host.name: host for host in state.inventory}


def reached(state: State) -> dict[str, Host]:
    """Return inventory name -> host, of those that this run has a connection to."""
    return {host.name: host for host in state.inventory if host in state.active_hosts}
