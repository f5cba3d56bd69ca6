"""Groups as they stand on the hosts, found by their manifests: to stop or restart one needs no recipe and no plan.

A group under guards is stopped, restarted and resumed by its guard, which drains requests in flight and counts nothing
against the budget. Plain units, and a head without a guard that answers, are stopped and started by systemd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

from gevent.lock import RLock
from gevent.pool import Pool
from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.bring_up import start_ranks, stop_ranks
from muster.deploys.shared import guard_commands
from muster.deploys.shared.gate import gate
from muster.deploys.shared.progress import Progress
from muster.errors import Refusal
from muster.hosts import all_hosts, operations
from muster.hosts.facts import probe
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.plan import manifest

_standing: WeakKeyDictionary[State, Standing | Exception] = WeakKeyDictionary()
_lock = RLock()


@dataclass
class Standing:
    """One group as its hosts tell of it.

    Args:
        group: its name.
        units: host -> its units, in start order.
        progress: shared by the hosts of this run.
        guarded: whether a guard runs the ranks.
        drain_seconds: how long a deliberate stop waits for requests in flight.
        guards: host -> what its guard says of itself, where one answers.
    """

    group: str
    units: Mapping[str, tuple[str, ...]]
    progress: Progress
    guarded: bool = False
    drain_seconds: int = 0
    guards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """The host with the endpoint."""
        return self.progress.hosts[0]

    @property
    def of_group(self) -> Mapping[str, Any]:
        """What the head's guard says of the group; empty when there is none that answers."""
        return self.guards.get(self.head, {}).get("group") or {}


def stop() -> None:
    """Stop the group that stands on the inventory's hosts.

    Guards stay and hold it stopped, through a reboot too, until it is resumed, restarted or deployed. Plain units stay
    enabled and start at the next boot.
    """
    found = _of(current_state())
    if found.of_group:
        _end(found, "stop", already=found.of_group["phase"] == "stopped" and _at_rest(found))
    else:
        stop_ranks(found.progress, tuple(reversed(found.units.get(current_host().name, ()))))
    gate(found.progress, "the stop of the group")


def restart() -> None:
    """Stop the group that stands on the inventory's hosts, then start it in its order and wait until it is ready."""
    found = _of(current_state())
    if found.of_group:
        _end(found, "restart")
    else:
        stop_ranks(found.progress, tuple(reversed(found.units.get(current_host().name, ()))))
    gate(found.progress, "the stop of the group")
    if not found.of_group:
        _lift(found)
    start_ranks(found.progress)
    gate(found.progress, "bring-up")


def resume() -> None:
    """Start the group that stands on the inventory's hosts and was stopped, or failed; wait until it is ready."""
    found = _of(current_state())
    _lift(found)
    start_ranks(found.progress)
    gate(found.progress, "bring-up")


@stage("Bring up")
def release(progress: Progress, group: str) -> None:
    """Let a group start that a stop or a spent budget holds; asked of every host."""
    host = current_host()
    command = FunctionCommand(guard_commands.resume, [group, host.name == progress.hosts[0]], {})
    progress.note(host, "resume", operations.carried_out(command, name="nothing holds the group"))


def _lift(found: Standing) -> None:
    if found.guarded:
        release(found.progress, found.group)


@stage("Bring up")
def _end(found: Standing, verb: str, *, already: bool = False) -> None:
    host = current_host()
    command = None
    if host.name == found.head and not already:
        since = str(found.of_group["generation"])
        command = FunctionCommand(guard_commands.end_generation, [found.group, verb, since, found.drain_seconds], {})
    says = "the guards have stopped the group" if verb == "stop" else "a new generation starts"
    found.progress.note(host, verb, operations.carried_out(command, name=says))


def _at_rest(found: Standing) -> bool:
    return all(each["child"] == "none" for each in found.of_group["members"])


def _of(state: State) -> Standing:
    with _lock:
        if state not in _standing:
            try:
                _standing[state] = _find(state)
            except Refusal as error:
                _standing[state] = DeployError(str(error))
        found = _standing[state]
    if isinstance(found, Exception):
        raise found
    return found


def _find(state: State) -> Standing:
    hosts = {host.name: host for host in state.inventory if host in state.active_hosts}
    answers = dict(zip(hosts, Pool(64).map(lambda name: probe(state, hosts[name], {}), hosts), strict=True))
    for name, answer in answers.items():
        if isinstance(answer, str):
            raise Refusal(f"{name}: {answer}", needed="a host that answers over SSH")
    told = {name: answer["groups"] for name, answer in answers.items() if not isinstance(answer, str)}
    data = next(iter(hosts.values())).data
    group = choose(told, group=data.get("group"), recipe=data.get("recipe"))
    mine = {name: groups[group] for name, groups in told.items() if group in groups}
    limit = {host.name for host in state.inventory if state.is_host_in_limit(host)}
    standing = _standing_group(group, mine, unreached=sorted(limit - set(hosts)))
    return replace(standing, guards=_guards(state, standing, hosts)) if standing.guarded else standing


def _guards(state: State, standing: Standing, hosts: Mapping[str, Host]) -> dict[str, Mapping[str, Any]]:
    """Ask every guard how it stands, all at once."""
    request = {"ask_guard": {"group": standing.group, "command": "status"}}
    mine = [hosts[name] for name in standing.progress.hosts]
    told = all_hosts.each(mine, lambda host: all_hosts.ask(state, host, request, "guard status", seconds=60))
    answers = {name: answer.get("ask_guard", answer).get("answer") or {} for name, answer in told.items()}
    return {name: answer for name, answer in answers.items() if "error" not in answer}


def choose(told: Mapping[str, Mapping[str, Any]], *, group: str | None, recipe: str | None) -> str:
    """Return the name of the group that is meant.

    Args:
        told: host -> group -> manifest.
        group, recipe: what the user said, if anything.

    Raises:
        Refusal: none is there, or several and nothing says which.
    """
    recipes = {name: manifest["recipe"] for groups in told.values() for name, manifest in groups.items()}
    fits = sorted(
        name
        for name, its_recipe in recipes.items()
        if group in (None, name) and recipe in (None, its_recipe, str(its_recipe).replace("-", "_"))
    )
    if len(fits) == 1:
        return fits[0]
    there = ", ".join(f"{name} ({its_recipe})" for name, its_recipe in sorted(recipes.items())) or "none"
    raise Refusal(
        f"groups on these hosts: {there}",
        needed="one group to act on",
        fix="name it with --data group=NAME or --data recipe=NAME" if recipes else "deploy a recipe first",
    )


def _standing_group(group: str, mine: Mapping[str, Mapping[str, Any]], unreached: Sequence[str]) -> Standing:
    first = next(iter(mine.values()))
    hosts = sorted(mine, key=lambda name: int(mine[name]["node_rank"]))
    digests = {told["digest"] for told in mine.values()}
    if len(hosts) != first["hosts"] or len(digests) > 1:
        missing = len(hosts) != first["hosts"]
        found = f"{', '.join(hosts)} of {first['hosts']} hosts in this run" if missing else "its hosts differ in plan"
        fix = "run without --limit on the group's own inventory" if missing else "run the recipe's deploy"
        if missing and unreached:
            found += f"; {', '.join(unreached)} could not be reached"
            fix = "bring the host back; meanwhile its peers have stopped their ranks by themselves"
        raise Refusal(
            f"group {group}: {found}",
            needed="all of its hosts, with one plan: a group stops and starts as one",
            fix=fix,
        )
    logger.info(f"group {group}: {first['label']} on {', '.join(hosts)}")
    progress = Progress(tuple(hosts), manifest.steps(mine), int(first["ready_timeout"]))
    return Standing(
        group,
        {name: tuple(told["units"]) for name, told in mine.items()},
        progress,
        guarded=bool(first.get("heals")),
        drain_seconds=int(first.get("drain_seconds", 0)),
    )
