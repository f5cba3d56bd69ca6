"""One host program in one SSH session, as a pyinfra command: run, read its answer, say what it said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyinfra import logger
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, ConnectorArguments
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.util import CommandOutput

from muster.errors import Refusal
from muster.hosts import programs
from muster.hosts.facts import Program

_PRIVATE = ("text", "uv_payload")

Heard = Callable[[State, Host, programs.Answer], bool | None]


class Later:
    """A request that is made when its operation is executed, from what earlier operations have found.

    Args:
        make: returns the request, or None when there is nothing to ask; may raise `Refusal`.
    """

    def __init__(self, make: Callable[[], programs.Request | None]) -> None:
        self.make = make


class Session(FunctionCommand):
    """A host program, the request it gets on standard input, and what to do with its answer.

    Args:
        program: name of the module of `muster.on_host`.
        request: what its `main` takes; may hold secrets, which are never printed. What is made later is not printed.
        says: what this does, in words, for `-v` and test fixtures.
        heard: called with the answer; returning False fails the operation.
        streams: print the program's lines as they come, for the one that runs for minutes.
    """

    def __init__(
        self,
        program: str,
        request: programs.Request | Later,
        says: str,
        heard: Heard | None = None,
        *,
        streams: bool = False,
    ) -> None:
        shown = {} if isinstance(request, Later) else public(request)
        super().__init__(run_on_host, [program, shown], {})
        self.program, self.request, self.says, self.heard, self.streams = program, request, says, heard, streams

    def execute(self, state: State, host: Host, connector_arguments: ConnectorArguments) -> bool:
        """Run it on the host; False when the program or `heard` says so."""
        if state.print_input:
            host.log(f">>> {self.says}")
        try:
            request = self.request.make() if isinstance(self.request, Later) else self.request
        except Refusal as refusal:
            fail(host, str(refusal))
            return False
        if request is None:
            return True
        answer = ask(state, host, self.program, request, self.says, connector_arguments, streams=self.streams)
        if "error" in answer:
            fail(host, answer["error"])
            return False
        return self.heard is None or self.heard(state, host, answer) is not False


def run_on_host(program: str, request: object) -> None:
    """Name a session in pyinfra's own listings; `Session.execute` does the work."""
    raise RuntimeError(f"a session is run by Session.execute, not by calling {program} with {request}")


def public(value: Any) -> Any:
    """Return a request as it may be printed: what files hold, secrets among it, and binaries are left out."""
    if isinstance(value, Mapping):
        return {key: "..." if key in _PRIVATE and value[key] else public(value[key]) for key in value}
    return [public(item) for item in value] if isinstance(value, (list, tuple)) else value


def ask(
    state: State,
    host: Host,
    program: str,
    request: programs.Request,
    says: str,
    connector_arguments: Mapping[str, Any] | None = None,
    *,
    streams: bool = False,
) -> programs.Answer:
    """Run one host program and return its answer; `{"error": text}` when there is none.

    Args:
        state, host: pyinfra's.
        program, request, says: as in `Session`.
        connector_arguments: sudo and its like; those of the operation that is being run when None.
        streams: print lines as they come.
    """
    arguments = dict(connector_arguments if connector_arguments is not None else current_arguments(host))
    arguments["_stdin"] = Program(programs.bundle({program: request}, streams=streams), says)
    try:
        status, output = host.run_shell_command(
            StringCommand(programs.COMMAND), print_output=streams or state.print_output, print_input=False, **arguments
        )
    except Exception as error:  # a connection can break in as many ways as there are libraries below
        return {"error": f"the SSH session ended: {type(error).__name__}: {error}"}
    return _answer(program, status, output, streams)


def _answer(program: str, status: bool, output: CommandOutput, streams: bool) -> programs.Answer:
    if streams:
        lines = [line for line in output.stderr_lines if line.strip()]
        return {} if status else {"error": "".join(lines[:1]) or f"{program} failed"}
    try:
        return programs.answers(output.stdout_lines)[program]
    except (ValueError, KeyError) as error:
        tail = "\n".join(output.stderr_lines[-5:])
        return {"error": f"{error}\n{tail}".rstrip()}


def current_arguments(host: Host) -> dict[str, Any]:
    """Return the connector arguments (sudo, environment, ...) of the operation that a generator is running in."""
    given: Mapping[str, Any] = host.current_op_global_arguments or {}
    return {key: given[key] for key in CONNECTOR_ARGUMENT_KEYS if key in given}


def say(host: Host, text: str) -> None:
    """Print lines under a host's name."""
    for line in text.splitlines() or [""]:
        host.log(line)


def fail(host: Host, text: str) -> None:
    """Print lines of an error under a host's name."""
    for line in text.splitlines() or ["failed"]:
        host.log_styled(line, fg="red", log_func=logger.error)
