"""Ask every host of an inventory about its weights, all at once, in one session each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gevent.pool import Pool
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.errors import Refusal
from muster.hosts import all_hosts
from muster.spec import inventory

PROBE_SECONDS, READ_SECONDS = 120, 7200
Answers = dict[str, Mapping[str, Any]]


def every_host(inventory_file: str, overrides: Mapping[str, Any], program: str, request: Mapping[str, Any]) -> Answers:
    """Connect, ask, disconnect; return host -> answer.

    Args:
        inventory_file: pyinfra's.
        overrides: settings that beat the rest.
        program: module of `muster.on_host`.
        request: what its `main` takes, the same on every host.

    Raises:
        Refusal: a host that cannot be reached or answers with an error.
    """
    from pyinfra.api.config import Config
    from pyinfra.api.connect import disconnect_all
    from pyinfra.context import ctx_state

    state = State(inventory.load(inventory_file, overrides), Config())
    ctx_state.set(state)
    unreached = all_hosts.connect(state)
    try:
        if unreached:
            raise Refusal("no SSH session to " + ", ".join(f"{name} ({why})" for name, why in unreached.items()))
        return hosts(state, {host.name: host for host in state.inventory}, program, request, seconds=READ_SECONDS)
    finally:
        disconnect_all(state)


def hosts(
    state: State, asked: Mapping[str, Host], program: str, request: Mapping[str, Any], *, seconds: int = PROBE_SECONDS
) -> Answers:
    """Ask connected hosts; raises as `every_host`."""

    def one(host: Host) -> dict[str, Any]:
        answers = all_hosts.ask(state, host, {program: request}, f"{program}: {request['do']}", seconds=seconds)
        answer: dict[str, Any] = answers.get(program, answers)
        return answer

    answers = dict(zip(asked, Pool(min(all_hosts.AT_ONCE, len(asked))).map(one, list(asked.values())), strict=True))
    wrong = [f"{name}: {answer['error']}" for name, answer in answers.items() if "error" in answer]
    if wrong:
        raise Refusal("\n".join(wrong))
    return answers
