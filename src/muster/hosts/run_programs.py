"""The one way to run host programs: text and requests in over one SSH session, one answer per program out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.context import ctx_config

from muster.errors import Refusal
from muster.hosts import programs, ssh_session
from muster.hosts.all_hosts import each
from muster.hosts.check_answers import checked
from muster.hosts.printable import one_line
from muster.hosts.programs import Answer, Request
from muster.hosts.say import fail, progress


class Answers(dict[str, Answer]):
    """Program name -> answer, one for each request; `{"error": text}` where there is none.

    Args:
        lost: why the session gave no answer at all; empty when it did.
    """

    def __init__(self, answers: Mapping[str, Answer], lost: str = "") -> None:
        super().__init__(answers)
        self.lost = lost


def run_programs(
    state: State,
    host: Host,
    requests: Mapping[str, Request],
    *,
    seconds: float | None = None,
    streams: bool = False,
) -> Answers:
    """Run host programs in one session, from any greenlet.

    Args:
        state, host: pyinfra's; the host is connected.
        requests: program name -> what its `main` takes; run in this order.
        seconds: how long the session may take; by the programs and their requests when None.
        streams: print the programs' lines as they come; then an answer holds nothing but an error.
    """
    try:
        output = ssh_session.converse(
            state,
            host,
            programs.COMMAND,
            _bundle(json.dumps(requests, default=dict), streams),
            connector_arguments(state, host),
            seconds=allowed_seconds(requests) if seconds is None else seconds,
            on_line=_printer(host) if streams or state.print_output else None,
        )
    except Exception as error:  # a connection can break in as many ways as there are libraries below
        return _lost(requests, f"the SSH session ended: {_words(error)}")
    if streams:
        failure = "" if output.status == 0 else _first(output.stderr) or f"{' and '.join(requests)} failed"
        return Answers({name: {"error": failure} if failure else {} for name in requests})
    try:
        answers = programs.answers(output.stdout)
    except (ValueError, RecursionError) as error:
        return _lost(requests, "\n".join([_words(error), *map(one_line, output.stderr[-5:])]))
    return Answers(
        {
            name: checked(name, request, answers.get(name, {"error": f"{name} gave no answer"}))
            for name, request in requests.items()
        }
    )


def run_program(
    state: State,
    host: Host,
    name: str,
    request: Request,
    *,
    seconds: float | None = None,
    streams: bool = False,
) -> Answer:
    """Run one host program and return its answer; `{"error": text}` where there is none.

    Args:
        name: of the module of `muster.on_host`.
        request: what its `main` takes.
        state, host, seconds, streams: as for `run_programs`.
    """
    return run_programs(state, host, {name: request}, seconds=seconds, streams=streams)[name]


def ask_all(
    state: State,
    hosts: Iterable[Host],
    name: str,
    request: Request,
    *,
    seconds: float | None = None,
    fix: str = "",
) -> dict[str, Answer]:
    """Run one host program on every host at once; return host -> answer.

    Args:
        hosts: connected ones.
        fix: what to do about a host that gives none.
        state, name, request, seconds: as for `run_program`.

    Raises:
        Refusal: hosts that gave no answer, all of them, each with its error.
    """
    answers = each(hosts, lambda host: run_program(state, host, name, request, seconds=seconds))
    wrong = [f"{host}: {answer['error']}" for host, answer in answers.items() if "error" in answer]
    if wrong:
        raise Refusal("\n".join(wrong), needed="an answer of every host", fix=fix)
    return answers


def connector_arguments(state: State, host: Host) -> dict[str, Any]:
    """Return sudo and its like: of the operation that runs on the host, else of inventory and configuration."""
    given = cast("Mapping[str, Any] | None", host.current_op_global_arguments)
    if given is None:
        with ctx_config.use(state.config.copy()):
            given = cast("Mapping[str, Any]", pop_global_arguments(state, host, {})[0])
    return {key: given[key] for key in CONNECTOR_ARGUMENT_KEYS if key in given}


def allowed_seconds(requests: Mapping[str, Request]) -> float | None:
    """Return how long programs may take together; None where one streams, and only its silence is bounded."""
    seconds = 0.0
    for name, request in requests.items():
        if name in _UNBOUNDED:
            return None
        # What a request allows for waiting comes on top of the program's own work.
        seconds += _SECONDS.get(name, 600.0) + float(request.get("seconds") or 0) + float(request.get("wait") or 0)
        seconds += float(request.get("seconds") or 0) * float(request.get("ranks") or 0)
    return seconds


_UNBOUNDED = ("install_engine", "transfer_stage")
_SECONDS = {
    "ask_guard": 90.0,
    "ask_parser": 900.0,
    "loader_rates": 900.0,
    "resolve_engine": 7200.0,
    "run_units": 240.0,
    "weights_on_disk": 7200.0,
}


@lru_cache(maxsize=8)
def _bundle(requests: str, streams: bool) -> str:
    """Most hosts are asked the same: the text is made once for all of them."""
    return programs.bundle(json.loads(requests), streams=streams)


def _printer(host: Host) -> ssh_session.OnLine:
    def show(line: str, is_error: bool) -> None:
        (fail if is_error else progress)(host, line)

    return show


def _lost(requests: Mapping[str, Request], why: str) -> Answers:
    return Answers({name: {"error": why} for name in requests}, why)


def _first(lines: list[str]) -> str:
    return one_line(next((line for line in lines if line.strip()), ""), 4000)


def _words(error: Exception) -> str:
    """Return an error in words; with its class, unless the words are ours."""
    ours = isinstance(error, (ValueError, ssh_session.Broken))
    return str(error) if ours else one_line(f"{type(error).__name__}: {error}")
