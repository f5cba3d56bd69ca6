"""Host programs over SSH, on every host at once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from gevent.pool import Pool
from pyinfra.api import FactBase, Host, State
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.facts import get_fact
from pyinfra.context import ctx_config, ctx_host

from muster.hosts import programs
from muster.hosts.facts import Program

AT_ONCE = 64


class HostPrograms(FactBase[dict[str, Any]]):
    """What host programs answer; their text and requests travel on standard input (`_stdin`)."""

    def command(self, python: str | None = None) -> str:
        """Return the shell command that reads the programs.

        Args:
            python: the interpreter; the host's own when None.
        """
        return programs.COMMAND if python is None else f"exec {shlex.quote(python)} -I -"

    @staticmethod
    def default() -> dict[str, Any]:
        """Return the answer of a session that gave none."""
        return {"error": "the SSH session gave no answer; its output stands above"}

    def process(self, output: list[str]) -> dict[str, Any]:
        """Return program name -> answer, or `{"error": ...}`."""
        try:
            return programs.answers(output)
        except (ValueError, RecursionError) as error:
            return {"error": str(error)}


def ask(
    state: State, host: Host, requests: Mapping[str, Any], says: str, *, seconds: int, python: str | None = None
) -> dict[str, Any]:
    """Run host programs in one session, from any greenlet.

    Args:
        state, host: pyinfra's.
        requests: program name -> request.
        says: what this is, for pyinfra's listings.
        seconds: how long the session may take.
        python: as in `HostPrograms`.

    Returns:
        Program name -> answer; `{"error": text}` when there is none.
    """
    # Most hosts are asked the same; the text is made once for all of them.
    text = _bundle(json.dumps(requests))
    arguments = {"_stdin": Program(text, says), "_timeout": seconds}
    with ctx_config.use(state.config.copy()), ctx_host.use(host):
        answer: dict[str, Any] = get_fact(
            state, host, HostPrograms, kwargs={"python": python, **arguments}, apply_failed_hosts=False
        )
    return answer


@lru_cache(maxsize=8)
def _bundle(requests: str) -> str:
    return programs.bundle(json.loads(requests))


def connect(state: State, names: Collection[str] | None = None) -> dict[str, str]:
    """Connect to hosts at once; return host -> why, for those that could not be reached.

    Args:
        state: pyinfra's.
        names: of the hosts; all of the inventory when None.
    """

    def one(host: Host) -> str | None:
        try:
            with ctx_config.use(state.config.copy()), ctx_host.use(host):
                host.connect(show_errors=False, raise_exceptions=True)
        except ConnectError as error:
            return " ".join(str(part) for part in error.args) or "no SSH connection"
        except Exception as error:  # a connection can break in as many ways as there are libraries below
            return f"{type(error).__name__}: {error}"
        state.activate_host(host)
        return None

    return {
        name: why
        for name, why in each([host for host in state.inventory if names is None or host.name in names], one).items()
        if why
    }


def each(hosts: Iterable[Host], work: Callable[[Host], Any]) -> dict[str, Any]:
    """Do something with every host at once; host -> result, in the given order."""
    hosts = list(hosts)
    pool = Pool(min(AT_ONCE, max(1, len(hosts))))
    return dict(zip([host.name for host in hosts], pool.map(work, hosts), strict=True))


def hosts_of(state: State) -> dict[str, Host]:
    """Return inventory name -> host."""
    return {host.name: host for host in state.inventory}
