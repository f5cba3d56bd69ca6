"""Verify: the group serves the model under its name, every rank answers, and what runs is what was planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.shared.group_run import GroupRun
from muster.guard.endpoint_kinds import COMPLETIONS
from muster.hosts import operations
from muster.hosts.pyinfra_types import current_host, stage
from muster.hosts.run_programs import run_program
from muster.hosts.say import fail, say
from muster.plan import guard_files
from muster.plan.types import HostPlan, Plan

# An answer of a model that has just come up: kernels may still be compiled for this shape.
_SECONDS = 300


@stage("Verify")
def verify(run: GroupRun) -> None:
    """Ask every DP rank for an answer, and every host what it runs."""
    host = current_host()
    planned = run.host(host)
    question = FunctionCommand(runs_as_planned, [request(run.plan, planned), planned.units], {})
    run.progress.note(host, "verify", operations.holds(question, name="every rank answers, and runs what was planned"))


def runs_as_planned(state: State, host: Host, request: Mapping[str, Any], units: Sequence[str]) -> bool:
    """Ask a host whether it runs what was planned, and print what it says.

    Args:
        state, host: pyinfra's.
        request: of `muster.on_host.verify_group`.
        units: of the host.
    """
    answer = run_program(state, host, "verify_group", request)
    problems = [answer["error"]] if "error" in answer else answer["problems"]
    for problem in problems:
        fail(host, problem)
    if problems:
        fail(host, f"  more: journalctl {' '.join(f'-u {unit}' for unit in units)}")
    elif answer["ranks"]:
        ranks = answer["ranks"]
        if len(ranks) == 1:
            which = "the endpoint answered"
        elif request["question"]["by_rank"]:
            which = f"DP ranks {ranks[0]} to {ranks[-1]} each answered"
        else:
            which = f"the endpoint answered {len(ranks)} requests, each by a DP rank of the engine's choice"
        say(host, f"{which}; served as {', '.join(answer['served'])}")
    return not problems


def request(plan: Plan, host: HostPlan) -> dict[str, Any]:
    """Return the request of `muster.on_host.verify_group`: what runs on a host, and what answers where it is asked."""
    return what_runs(plan, host) | what_answers(plan, host)


def what_runs(plan: Plan, host: HostPlan) -> dict[str, Any]:
    """Return the part of the request that asks for a host's units and processes."""
    return {
        "units": [{"unit": unit, "digest": plan.digest, "argv": _main(plan, host)} for unit in host.units],
        "processes": [
            {
                "unit": unit_of(host, process.name),
                "argv": list(process.argv),
                "env": dict(process.env),
                "guarded": plan.heals,
            }
            for process in host.processes
        ],
    }


def what_answers(plan: Plan, host: HostPlan) -> dict[str, Any]:
    """Return the part of the request that asks the API; empty where the host has none."""
    if not host.answers:
        return {}
    own = [host] if plan.hybrid else plan.hosts.values()
    return {
        "url": plan.local_endpoint,
        "model": plan.served_model_name,
        "ranks": sum(len(other.dp_ranks) for other in own) or 1,
        "first_rank": host.dp_ranks[0] if plan.hybrid else 0,
        "question": plan.kind.question(plan.served_model_name),
        "tool_calling": plan.tool_calling if plan.endpoint_kind == COMPLETIONS else None,
        "seconds": _SECONDS,
        "api_key_file": plan.api_key_path,
    }


def _main(plan: Plan, host: HostPlan) -> list[str]:
    """Return the command line of a unit's main process where that is a guard; a plain unit's is its process."""
    return list(guard_files.command_of(plan, host)) if plan.heals else []


def unit_of(host: HostPlan, process: str) -> str:
    """Return the unit that a process runs in: its own, or the one guard's."""
    own = [unit for unit in host.units if unit.endswith(f"-{process}.service")]
    return own[0] if own else host.units[-1]
