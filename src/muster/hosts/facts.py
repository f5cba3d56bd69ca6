"""Facts: what a host says of itself, all of it in one SSH session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase, get_fact
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.context import ctx_config, ctx_host

from muster.hosts import programs


class HostState(FactBase[dict[str, Any]]):
    """Everything a plan touches on one host: files, units, ports, GPUs, addresses, the engine.

    The probe itself travels on standard input (`_stdin`, see `probe`), so that the number of files costs nothing.
    """

    def command(self) -> str:
        """Return the shell command that reads the probe."""
        return programs.COMMAND

    def process(self, output: list[str]) -> dict[str, Any]:
        """Return the probe's answer.

        Raises:
            FactProcessError: no answer, or one that says what is wrong.
        """
        try:
            answer = programs.answers(output)["probe_group"]
        except (ValueError, KeyError) as error:
            raise FactProcessError(str(error)) from None
        if set(answer) == {"error"}:
            raise FactProcessError(answer["error"])
        return answer


class Program(list[str]):
    """A program for standard input; pyinfra prints the arguments of facts, and this one by name only."""

    def __init__(self, text: str, says: str) -> None:
        super().__init__([text])
        self._says = says

    def __repr__(self) -> str:
        return f"<{self._says}>"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)


def probe(state: State, host: Host, request: Mapping[str, Any]) -> dict[str, Any] | str:
    """Ask one host for its state, from any greenlet.

    Args:
        state: pyinfra's.
        host: connected.
        request: what `muster.on_host.probe_group.main` takes.

    Returns:
        The answer, or in words why there is none.
    """
    program = Program(programs.bundle({"probe_group": request}), "probe of everything the plan touches")
    with ctx_config.use(state.config.copy()), ctx_host.use(host):
        answer = get_fact(state, host, HostState, kwargs={"_stdin": program}, apply_failed_hosts=False)
    return answer if answer else "the probe got no answer; its output stands above"
