"""Roll: the groups of a fleet are changed one after the other, and the first that fails ends it.

All of them are planned, probed and judged before the first is touched. Then each round of groups is changed as `serve`
changes one, out of the edge meanwhile. pyinfra's own order of operations is that of the rounds: every host has the
question that stands between two of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pyinfra.api.command import FunctionCommand
from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.edge import edge, require_edge
from muster.deploys.edge_drain import EdgeDrain, back_in_the_edge, out_of_the_edge
from muster.deploys.roll_edges import at_edges
from muster.deploys.serve import serve
from muster.deploys.shared.group_run import GroupRun
from muster.edge.groups_behind import groups_behind
from muster.errors import Refusal
from muster.hosts import operations
from muster.hosts.once import OncePerRun
from muster.hosts.program_operation import Session
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.hosts.run_words import words
from muster.hosts.say import fail
from muster.plan import fleet as fleet_plan
from muster.plan.fleet import FleetPlan, plan_fleet
from muster.spec import inventory, inventory_groups, inventory_source


class Gate(Protocol):
    """What a changed group must pass before it is back in the edge."""

    def require(self, recipe_name: str, run: GroupRun) -> None:
        """Refuse a group that could not be judged."""

    def problem(self, state: State, recipe_name: str, run: GroupRun) -> str:
        """Return why a group does not pass; empty where it does."""


@dataclass(frozen=True)
class Roll:
    """One change of a fleet, or of one of its groups.

    Args:
        recipes: group of the inventory -> its recipe.
        runs: group of the inventory -> its run.
        members: group of the inventory -> its hosts, with those that leave.
        rounds: which groups are changed together, in order.
        drains: group of the inventory -> how it gets out of the edge and back, of those that have to.
        left: edge -> servers that an earlier run has left out there.
        edges: names of the hosts that get the edge once all groups serve; empty where one group was meant.
        gates: that each changed group must pass.
    """

    recipes: Mapping[str, str]
    runs: Mapping[str, GroupRun]
    members: Mapping[str, frozenset[str]]
    rounds: Sequence[Sequence[str]]
    drains: Mapping[str, EdgeDrain]
    left: Mapping[str, Sequence[str]]
    edges: frozenset[str]
    gates: Sequence[Gate] = ()

    @property
    def hosts(self) -> frozenset[str]:
        """Every host that has a part in it."""
        return self.edges.union(*self.members.values())

    def of_host(self, number: int, host: str) -> str:
        """Return the group that is changed on a host in a round; empty for none."""
        return next((group for group in self.rounds[number] if host in self.members[group]), "")

    def failed_before(self, number: int, failed: frozenset[str]) -> list[str]:
        """Return the groups of earlier rounds that did not come through, by their names.

        Args:
            number: of a round.
            failed: hosts that have failed in this run.
        """
        earlier = [self.runs[group] for round in self.rounds[:number] for group in round]
        return [run.plan.group for run in earlier if not run.progress.settled or failed & set(run.plan.hosts)]

    def names(self, number: int) -> tuple[str, ...]:
        """Return the names of the groups from a round on."""
        return tuple(self.runs[group].plan.group for round in self.rounds[number:] for group in round)


_rolls: OncePerRun[Roll] = OncePerRun()


def deploy(recipe: str | None, parallel: int = 1, gates: Sequence[Gate] = ()) -> None:
    """Bring a group up, or all groups of an inventory that name their recipe.

    Args:
        recipe: of the group that is meant; None for all groups, or for the one that `--data group` names.
        parallel: groups at once.
        gates: of each changed group of a fleet.
    """
    if recipe is not None and len(inventory_groups.recipes(current_state().inventory)) <= 1:
        if gates:
            _rolls.get(current_state(), "gate", _refuse_gate)
        serve(recipe)
    else:
        roll(parallel, recipe, gates)


def _refuse_gate() -> Roll:
    raise Refusal(
        "a gate, and one group that is named by its recipe",
        needed="an inventory whose groups name their recipes (docs/fleet.md)",
        fix="leave it out, and judge the group afterwards: muster bench --against BASELINE, muster eval",
    )


def roll(parallel: int = 1, recipe: str | None = None, gates: Sequence[Gate] = ()) -> None:
    """Change the groups of an inventory one after the other; then the edge follows.

    Args:
        parallel: groups at once.
        recipe: of the one group that is meant, if it is one.
        gates: of each changed group, once it is verified; one that fails any goes back and ends the roll.

    Raises:
        DeployError: what speaks against any group, on any host, in one text; nothing was touched.
    """
    state, host = current_state(), current_host()
    mine = _rolls.get(state, "roll", lambda: _prepare(state, parallel, recipe, gates))
    if host.name not in mine.hosts:
        return
    if mine.left:
        _bring_back(mine)
    for number in host.loop(range(len(mine.rounds))):
        _in_turn(mine, number)
        group = mine.of_host(number, host.name)
        if group:
            drain = mine.drains.get(group)
            run = mine.runs[group]
            serve(
                mine.recipes[group],
                group,
                partial(_take_out, drain) if drain else None,
                partial(_prove, mine.gates, mine.recipes[group]) if mine.gates else None,
            )
            if drain is not None and host.name in run.plan.hosts:
                back_in_the_edge(drain, run.progress)
    if mine.edges:
        _in_turn(mine, len(mine.rounds))
        edge(None, after_groups=True)


def _take_out(drain: EdgeDrain, run: GroupRun) -> None:
    out_of_the_edge(drain, run.progress)


@stage("Gate")
def _prove(gates: Sequence[Gate], recipe: str, run: GroupRun) -> None:
    """Have a verified group judged, by its head."""
    question = FunctionCommand(_passes, [gates, recipe, run], {})
    run.progress.note(current_host(), "the gate", operations.holds(question, name="it is as good as it was"))


def _passes(state: State, host: Host, gates: Sequence[Gate], recipe: str, run: GroupRun) -> bool:
    asked = gates if host.name == run.plan.head.name else ()
    problem = next((problem for gate in asked if (problem := gate.problem(state, recipe, run))), "")
    if problem:
        fail(host, problem)
        run.progress.fail(f"{run.plan.group} does not pass the gate: {problem}")
    return not problem


@stage("Roll")
def _in_turn(roll: Roll, number: int) -> None:
    """Go on with the next round only if every group before it serves; every host is asked, which keeps the order."""
    groups = roll.rounds[number] if number < len(roll.rounds) else ()
    whose = ", ".join(roll.runs[group].plan.group for group in groups) or "the edge"
    operations.holds(FunctionCommand(_may_go_on, [roll, number], {}), name=f"it is the turn of {whose}")


def _may_go_on(state: State, host: Host, roll: Roll, number: int) -> bool:
    failed = roll.failed_before(number, frozenset(other.name for other in state.failed_hosts))
    if not failed:
        return True
    for drain in roll.drains.values():
        drain.end()
    words.untouched = words.untouched or (*roll.names(number), *(["the edge"] if roll.edges else []))
    if not words.failures and not words.conclusion:
        words.fail(f"{', '.join(failed)} did not come through")
    fail(host, f"{', '.join(failed)} did not come through; not touched: {', '.join(words.untouched)}")
    return False


@stage("Edge")
def _bring_back(roll: Roll) -> None:
    """Have back what nobody holds out of an edge any more."""
    out = list(roll.left.get(current_host().name, ()))
    session = Session("drain_servers", {"do": "ready", "servers": out}, f"have {', '.join(out)} back") if out else None
    operations.carried_out(session, name="no group is left out of the edge")


def _prepare(state: State, parallel: int, recipe: str | None, gates: Sequence[Gate]) -> Roll:
    given = state.inventory
    inventory_source.require_all_read(given)
    if parallel < 1:
        raise Refusal(f"{parallel} groups at once", needed="one at least", fix="--parallel 1")
    fleets = inventory.groups_of(given, name="inventory")
    whole = recipe is None and (len(fleets) == 1 or "group" not in given.get_override_data())
    meant = list(fleets) if whole else [inventory_groups.chosen(given, recipe, name="inventory")]
    path = inventory_source.path_of(given)
    words.about(path, "", "" if whole else inventory_groups.name_of(given, meant[0]))
    if any(fleets[group].settings.former_group for group in meant) and parallel > 1:
        raise Refusal("former_group is set", needed="groups that are renamed one by one", fix="--parallel 1")
    edges = frozenset(host.name for host in given.groups.get(inventory_groups.EDGE, ()))
    if not edges:
        behind = None
    elif whole:
        behind, _ = require_edge(given)
    else:
        behind = groups_behind(fleets, None)
    plans = behind.plans if behind is not None else plan_fleet(fleets).plans
    recipes = {group: str(fleets[group].settings.recipe) for group in meant}
    runs = _runs_of(state, recipes)
    for gate in gates:
        fleet_plan.each_group(runs, partial(_require, gate, recipes, runs))
    now = FleetPlan({**plans, **{group: run.plan for group, run in runs.items()}})
    still = [group for group, run in runs.items() if not run.decision.changes and run.progress.transaction is None]
    rounds = now.rounds(parallel, meant, still)
    drains, left = at_edges(state, now, behind.plan if behind is not None else None, edges, runs, rounds)
    return Roll(
        recipes,
        runs,
        {group: frozenset(host.name for host in given.groups[group]) for group in meant},
        rounds,
        drains,
        left,
        edges if whole else frozenset(),
        gates,
    )


def _require(gate: Gate, recipes: Mapping[str, str], runs: Mapping[str, GroupRun], group: str) -> None:
    gate.require(recipes[group], runs[group])


def _runs_of(state: State, recipes: Mapping[str, str]) -> dict[str, GroupRun]:
    """Plan, probe and judge every group.

    Raises:
        DeployError: what speaks against any of them.
    """
    runs: dict[str, GroupRun] = {}
    wrong: list[str] = []
    for group, recipe in recipes.items():
        try:
            runs[group] = GroupRun.of(state, recipe, group)
        except DeployError as error:
            wrong.append(f"{group}: {error}")
    if wrong:
        raise DeployError("\n".join(wrong) + ("\nno group was touched" if len(recipes) > 1 else ""))
    return runs
