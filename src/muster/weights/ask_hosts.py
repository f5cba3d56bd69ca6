"""Ask every host of an inventory about its weights, all at once, in one session each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.errors import Refusal
from muster.hosts.all_hosts import each
from muster.hosts.connect import connected
from muster.hosts.run_programs import run_program
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
    with connected(inventory.load(inventory_file, overrides), needs_all=True) as there:
        return hosts(there.state, there.state.inventory, program, request, seconds=READ_SECONDS)


def hosts(
    state: State, asked: Iterable[Host], program: str, request: Mapping[str, Any], *, seconds: int = PROBE_SECONDS
) -> Answers:
    """Ask connected hosts; raises as `every_host`."""
    answers = each(asked, lambda host: run_program(state, host, program, request, seconds=seconds))
    wrong = [f"{name}: {answer['error']}" for name, answer in answers.items() if "error" in answer]
    if wrong:
        raise Refusal("\n".join(wrong))
    return dict(answers)
