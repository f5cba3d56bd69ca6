"""What a roll has to do at the edges: which groups leave them for their change, and what is not there as it should be.

A group may answer at other addresses once it is changed. Each edge follows it then, before another group of its model
leaves; so does one that an earlier run was cut before it could tell. Every edge has to be there for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyinfra import logger
from pyinfra.api.state import State

from muster.deploys.check import drain_seconds
from muster.deploys.edge_drain import EdgeDrain
from muster.deploys.edge_servers import Seen, Servers, look, servers
from muster.deploys.shared.group_run import GroupRun
from muster.edge.edge_plan import EdgePlan
from muster.errors import Refusal
from muster.hosts.all_hosts import each, reached
from muster.hosts.run_programs import run_program
from muster.plan.fleet import FleetPlan
from muster.plan.types import Plan

_PROBE_SECONDS = 150


def at_edges(
    state: State,
    fleet: FleetPlan,
    behind: EdgePlan | None,
    edges: frozenset[str],
    runs: Mapping[str, GroupRun],
    rounds: Sequence[Sequence[str]],
) -> tuple[dict[str, EdgeDrain], dict[str, Sequence[str]]]:
    """Return how groups leave the edges and come back, of those that have to, and edge -> what is out there already.

    Args:
        state: pyinfra's.
        fleet: every group of the inventory.
        behind: plan of the edges; None without one.
        edges: their names.
        runs: group of the inventory -> its run.
        rounds: which groups are changed together, in order.

    Raises:
        Refusal: a group answers at other addresses once it is changed, and an edge that would lose it was not reached.
    """
    hosts = {name: host for name, host in reached(state).items() if name in edges}
    for name in sorted(edges - set(hosts)):
        logger.warning(f"{name} was not reached: its own checks of /ready have to take a group out there")
    own: dict[str, Servers] = {}
    if behind is not None:
        own = {group: servers(behind, run.plan.group) for group, run in runs.items()}
    seen = look(state, hosts.values(), {name: place for its in own.values() for name, place in its.items()})
    moves = {group: frozenset(edge for edge, there in seen.items() if there.moves(its)) for group, its in own.items()}
    if missing := sorted(edges - seen.keys()):
        changing = {group: run for group, run in runs.items() if not run.decision.ready}
        _require_every_edge(missing, [run for group, run in changing.items() if moves.get(group) or _moves(state, run)])
    drains: dict[str, EdgeDrain] = {}
    models = {group: plan.served_model_name for group, plan in fleet.plans.items()}
    serving = {
        group
        for group in models
        # One that answers elsewhere once it is changed does not answer there yet: the edges have it where it is.
        if group not in runs
        or runs[group].decision.answers
        or any(there.has(own.get(group, ())) for there in seen.values())
    }
    for round in rounds:
        for group in round:
            run, its = runs[group], own.get(group, {})
            stops = run.decision.restart and any(host.stop for host in run.decision.hosts.values())
            others = [other for other in serving if other not in round and models[other] == models[group]]
            if stops and not others:
                logger.warning(
                    f"{run.plan.group} alone serves {models[group]}: nothing answers for it until it is back"
                )
            stays = not (stops and others)
            if hosts and its and (moves[group] or not stays):
                drains[group] = EdgeDrain(
                    run.plan.group, models[group], its, hosts, drain_seconds(run), moves[group], stays
                )
        serving |= set(round)
    return drains, _left(seen)


def _left(seen: Mapping[str, Seen]) -> dict[str, Sequence[str]]:
    left: dict[str, Sequence[str]] = {name: there.drained for name, there in seen.items() if there.drained}
    for name, drained in left.items():
        logger.info(f"{name}: {', '.join(drained)} is left out of the edge, and comes back")
    return left


def _moves(state: State, run: GroupRun) -> bool:
    """Whether a group is about to answer at other addresses than now, by what its hosts say."""
    hosts = [host for name, host in reached(state).items() if name in run.plan.hosts]
    answers = each(hosts, lambda host: run_program(state, host, "probe_group", {}, seconds=_PROBE_SECONDS))
    return answers_elsewhere(
        run.plan, [answer["groups"].get(run.plan.group, {}) for answer in answers.values() if "error" not in answer]
    )


def answers_elsewhere(plan: Plan, manifests: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether the group on the hosts has its API or its /ready at another address than the plan's.

    Args:
        plan: of the group.
        manifests: of hosts, as they are; empty for one that has nothing of it.
    """
    ready = {str(check.target) for step in plan.steps for check in step.checks}
    for manifest in manifests:
        targets = {str(check["target"]) for step in manifest.get("steps", ()) for check in step["checks"]}
        asked = {target for target in targets if target.endswith("/ready")}
        if manifest.get("endpoint", plan.endpoint) != plan.endpoint or asked - ready:
            return True
    return False


def _require_every_edge(missing: Sequence[str], moving: Sequence[GroupRun]) -> None:
    if moving:
        raise Refusal(
            f"{', '.join(run.plan.group for run in moving)} answers at other addresses once it is changed, and"
            f" {', '.join(missing)} gave no answer over SSH",
            needed="every edge: one that is not told would find no group any more",
            fix="bring it back, or take it out of the inventory's edge group; nothing was touched",
        )
