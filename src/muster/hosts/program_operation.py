"""One host program as a pyinfra command: run it, then act on its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyinfra.api.arguments import ConnectorArguments
from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.errors import Refusal
from muster.hosts import programs
from muster.hosts.run_programs import run_program
from muster.hosts.say import fail

_PRIVATE = ("text", "uv_payload")

OnAnswer = Callable[[State, Host, programs.Answer], bool | None]


class Later:
    """A request that is made when its operation is executed, from the results of earlier operations.

    Args:
        make: returns the request, or None when there is nothing to ask; may raise `Refusal`.
    """

    def __init__(self, make: Callable[[], programs.Request | None]) -> None:
        self.make = make


class Session(FunctionCommand):
    """A host program, the request it gets on standard input, and what to do with its answer.

    Args:
        program: name of the module of `muster.on_host`.
        request: what its `main` takes; may hold secrets, which are never printed. A `Later` request is not printed.
        title: what this does, in words, for `-v` and test fixtures.
        on_answer: called with the answer; returning False fails the operation.
        streams: print the program's lines as they come, for programs that run for minutes.
    """

    def __init__(
        self,
        program: str,
        request: programs.Request | Later,
        title: str,
        on_answer: OnAnswer | None = None,
        *,
        streams: bool = False,
    ) -> None:
        shown = {} if isinstance(request, Later) else public(request)
        super().__init__(run_on_host, [program, shown], {})
        self.program, self.request, self.title, self.on_answer = program, request, title, on_answer
        self.streams = streams

    def execute(self, state: State, host: Host, connector_arguments: ConnectorArguments) -> bool:
        """Run it on the host; False when the program or `on_answer` fails."""
        if state.print_input:
            host.log(f">>> {self.title}")
        try:
            request = self.request.make() if isinstance(self.request, Later) else self.request
        except Refusal as refusal:
            fail(host, str(refusal))
            return False
        if request is None:
            return True
        answer = run_program(state, host, self.program, request, streams=self.streams)
        if "error" in answer:
            fail(host, answer["error"])
            return False
        return self.on_answer is None or self.on_answer(state, host, answer) is not False


def run_on_host(program: str, request: object) -> None:
    """Name a session in pyinfra's own listings; `Session.execute` does the work."""
    raise RuntimeError(f"a session is run by Session.execute, not by calling {program} with {request}")


def public(value: Any) -> Any:
    """Return a request as it may be printed, without the text of files (some are secrets) and without binaries."""
    if isinstance(value, Mapping):
        return {key: "..." if key in _PRIVATE and value[key] else public(value[key]) for key in value}
    return [public(item) for item in value] if isinstance(value, (list, tuple)) else value
