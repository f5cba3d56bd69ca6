"""A way out: one group, or everything that muster made, taken off the hosts of an inventory.

The group is stopped first, by its guards where the head's answers, so that requests in flight are drained. What goes is
found on the hosts and shown before anything is touched; a host that is off is named and keeps nobody from leaving. A
removal is a change of the groups that go: it holds their locks, and is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State

from muster.deploys.change_steps import finish, lock, record, stays
from muster.deploys.deployed_group import at_rest, choose
from muster.deploys.edge_drain import EdgeDrain
from muster.deploys.shared import guard_commands, polling
from muster.deploys.shared.gate import gate
from muster.deploys.shared.progress import Progress
from muster.deploys.shared.transaction import Transaction, begin
from muster.deploys.way_out import leave_edge, way_out
from muster.errors import Refusal
from muster.hosts import operations
from muster.hosts.all_hosts import reached
from muster.hosts.once import OncePerRun
from muster.hosts.program_operation import Later, Session
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.hosts.run_programs import ask_all, run_program
from muster.hosts.run_words import words
from muster.hosts.say import say
from muster.on_host import places
from muster.on_host.in_words import size
from muster.plan import change as changes
from muster.spec import inventory, inventory_groups, inventory_source
from muster.spec.inventory import Scope
from muster.spec.settings import Settings

_LOOK_SECONDS, _GUARD_SECONDS = 400, 60


@dataclass(frozen=True)
class Removal:
    """What one run takes off the hosts.

    Args:
        groups: that go, each with the host whose guard ends it ("" where none answers) and what that guard said.
        request: of `muster.on_host.removable` and `remove_muster`, the same for every host.
        there: host -> what `removable` answered.
        progress: shared by the hosts of this run.
        drain: how the group gets out of the edges of its fleet first; None where it does not.
    """

    groups: Mapping[str, tuple[str, Mapping[str, Any]]]
    request: Mapping[str, Any]
    there: Mapping[str, Mapping[str, Any]]
    progress: Progress
    drain: EdgeDrain | None


_removals: OncePerRun[Removal] = OncePerRun()


def remove(
    *, everything: bool = False, weights: bool = False, group: str | None = None, recipe: str | None = None
) -> None:
    """Stop a group and take it off the inventory's hosts.

    Args:
        everything: all groups, and engines, caches, tools and the engine's user as well.
        weights: with `everything`: staged and downloaded weights too.
        group, recipe: which group, as the user named it; not needed where there is only one.
    """
    removal = _removals.get(
        current_state(),
        "",
        lambda: _look(current_state(), everything=everything, weights=weights, group=group, recipe=recipe),
    )
    if current_host().name not in removal.there:
        return
    lock(removal.progress, stays)
    leave_edge(removal.drain, removal.progress)
    record(removal.progress, "stopping")
    _stop_groups(removal)
    gate(removal.progress, "the stop of the group")
    _stop_units(removal)
    gate(removal.progress, "the stop of every unit")
    record(removal.progress, "committing")
    _take_away(removal)
    finish(removal.progress)


def _look(state: State, *, everything: bool, weights: bool, group: str | None, recipe: str | None) -> Removal:
    """Ask every host what is there, print it, and find the guards that can drain."""
    if weights and not everything:
        raise Refusal(
            "--weights without --everything", needed="both", fix="weights belong to no group: add --everything"
        )
    scope = inventory.scope_of(state.inventory, recipe)
    if everything:
        _require_own_hosts(state.inventory, scope)
    settings = inventory.of_run(state.inventory, scope.group).settings
    request = removal_request(settings, groups=None, weights=weights)
    hosts = {name: host for name, host in reached(state).items() if name in scope.members}
    there = look_at(state, hosts, request)
    if not everything:
        request["groups"] = [scope.name or _chosen(there, group, recipe)]
        there = look_at(state, hosts, request)
    there = {name: answer for name, answer in there.items() if answer["paths"] or answer["user"]}
    limit = {host.name for host in state.inventory if state.is_host_in_limit(host)} & scope.members
    words.about(inventory_source.path_of(state.inventory), "", scope.name)
    for line in plan_text(there, everything=everything):
        logger.info(line)
    groups = sorted({name for answer in there.values() for name in answer["going"]})
    progress = Progress(tuple(there), (), 0, transaction=begin_removal(there))
    heads = {name: _head(state, hosts, there, name) for name in groups}
    serves = any(head and not at_rest(status) for head, status in heads.values())
    seconds = max((drain_seconds(there, name) for name in groups), default=0)
    drain = way_out(state, scope, seconds) if serves else None
    removal = Removal(heads, request, there, progress, drain)
    _say_beforehand(removal, sorted(limit - set(hosts)))
    return removal


def _require_own_hosts(given: Inventory, scope: Scope) -> None:
    """Refuse to take everything off a host that another group of the inventory is on too.

    Raises:
        Refusal: naming the host and the groups.
    """
    for other in inventory_groups.recipes(given):
        shared = sorted(scope.members & {host.name for host in given.groups[other]})
        if scope.group not in ("", other) and shared:
            raise Refusal(
                f"{shared[0]} is a host of {inventory_groups.name_of(given, other)} too",
                needed=f"hosts of {scope.name} alone: everything that muster made would go",
                fix=f"leave out --everything, which takes {scope.name} alone, or remove the other group first",
            )


def begin_removal(there: Mapping[str, Mapping[str, Any]]) -> Transaction | None:
    """Return the change that a removal is, on every host that has something of a group; None where none has.

    Args:
        there: host -> what `removable` answered.

    Raises:
        Refusal: somebody else is changing a group that goes.
    """
    found = {name: changes.seen(answer["changes"]) for name, answer in there.items()}
    for name, by_group in found.items():
        for group, state in by_group.items():
            changes.require_free(group, {name: state})
    groups = {name: tuple(answer["going"]) for name, answer in there.items() if answer["going"]}
    if not groups:
        return None
    first = {name: found[name][own[0]] for name, own in groups.items()}
    what = ", ".join(sorted({group for own in groups.values() for group in own}))
    digests = {state.installed for state in first.values()}
    before = digests.pop() if len(digests) == 1 else ""
    transaction = begin(what, "remove", before, "", hosts=tuple(groups), found=first, groups=groups)
    if transaction.unfinished is not None:
        logger.warning(f"{transaction.unfinished.sentence}; {transaction.unfinished.next_step('')}")
    return transaction


def _say_beforehand(removal: Removal, unreached: Sequence[str]) -> None:
    """Have asked whether all of it is to go, and keep what holds at the end."""
    what = "everything that muster made" if removal.request["groups"] is None else ", ".join(removal.groups)
    if removal.there:
        seconds = max((drain_seconds(removal.there, group) for group in removal.groups), default=0)
        drain = f"; requests in flight get up to {seconds} s" if seconds else ""
        words.ask(f"{what or 'what is left'} will be removed from {', '.join(removal.there)}{drain}")
        words.done(f"{what or 'what was left'} is gone from {', '.join(removal.there)}")
    else:
        words.done("nothing of it is on these hosts")
    for name in unreached:
        words.fail(f"{name} could not be reached: what muster made there stays")
        words.advice = "run the same command again when it answers"


def removal_request(settings: Settings, *, groups: Sequence[str] | None, weights: bool = False) -> dict[str, Any]:
    """Return what `removable` and `remove_muster` are asked.

    Args:
        settings: that say where engines, hub and weights are.
        groups: that go; None for everything.
        weights: whether weights go as well.
    """
    roots = {"root": settings.root, "hf_home": settings.hf_home, "weights_root": settings.weights.root}
    return {"groups": None if groups is None else list(groups), "weights": weights, **roots}


def drain_seconds(there: Mapping[str, Mapping[str, Any]], group: str) -> int:
    """Return how long the stop of a group waits for requests in flight, from what `removable` answered on each host."""
    seconds = (answer["groups"].get(group, {}).get("drain_seconds", 0) for answer in there.values())
    return max(seconds, default=0)


def units_to_stop(there: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the units of a host that have to stop; a template and what was only staged never ran."""
    return tuple(places.of_systemd(there["units"]))


def look_at(state: State, hosts: Mapping[str, Host], request: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return host -> what `removable` answers.

    Raises:
        Refusal: hosts give no answer.
    """
    return ask_all(state, hosts.values(), "removable", request, seconds=_LOOK_SECONDS, fix="mend it, or --limit")


def _chosen(there: Mapping[str, Mapping[str, Any]], group: str | None, recipe: str | None) -> str:
    """Return the group that is meant; one that left no manifest can still be named.

    Raises:
        Refusal: none fits, or several do.
    """
    if group is not None and any(group in answer["going"] for answer in there.values()):
        return group
    return choose({name: answer["groups"] for name, answer in there.items()}, group=group, recipe=recipe)


def _head(
    state: State, hosts: Mapping[str, Host], there: Mapping[str, Mapping[str, Any]], group: str
) -> tuple[str, Mapping[str, Any]]:
    """Return the host whose guard can end a group, and the group's status there; "" where none can."""
    for name, answer in there.items():
        manifest = answer["groups"].get(group, {})
        if manifest.get("heals") and manifest.get("node_rank") == 0:
            request = {"group": group, "command": "status"}
            said = run_program(state, hosts[name], "ask_guard", request, seconds=_GUARD_SECONDS)
            status = (said.get("answer") or {}).get("group")
            if status:
                return name, status
    return "", {}


def plan_text(there: Mapping[str, Mapping[str, Any]], *, everything: bool) -> list[str]:
    """Return what goes and what stays, for people: hosts that are alike together, paths with their bytes.

    Args:
        there: host -> what `removable` answered.
        everything: whether more than one group goes.
    """
    if not there:
        return ["nothing of muster is on these hosts" if everything else "nothing of this group is on these hosts"]
    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for name, answer in there.items():
        kept = tuple(f"{path} ({why})" for path, (why, _) in answer["kept"].items())
        alike.setdefault((tuple(answer["paths"]), kept), []).append(name)
    lines = ["this will stop and remove:"]
    for (paths, kept), names in alike.items():
        total = sum(sum(there[name]["paths"].values()) for name in names)
        lines.append(f"  on {', '.join(names)}: {size(total)}")
        lines += [f"    {path}  {size(max(there[name]['paths'][path] for name in names))}" for path in paths]
        lines += [f"    user {places.USER}"] if any(there[name]["user"] for name in names) else []
        lines += [f"    stays: {text}" for text in kept]
    return lines


@stage("Stop")
def _stop_groups(removal: Removal) -> None:
    """Have the guards drain and end every group that goes."""
    host, progress = current_host(), removal.progress
    for group in host.loop(removal.groups):
        head, status = removal.groups[group]
        command = None
        if host.name == head and not at_rest(status):
            command = FunctionCommand(_drained, [group, status, removal], {})
        progress.note(host, "stop", operations.carried_out(command, name=f"the guards have stopped {group}"))


def _drained(state: State, host: Host, group: str, status: Mapping[str, Any], removal: Removal) -> bool:
    """Have the guards end a group; where they cannot, for a host is off, the units are stopped without them."""
    absent = [member["host"] for member in status["members"] if member["host"] not in removal.there]
    since, seconds = str(status["generation"]), drain_seconds(removal.there, group)
    if not guard_commands.end_generation(state, host, group, "stop", since, seconds, absent):
        say(host, "the units are stopped without the guards' help; requests in flight are cut off")
    return True


@stage("Stop")
def _stop_units(removal: Removal) -> None:
    host = current_host()
    units = units_to_stop(removal.there[host.name])
    command = FunctionCommand(polling.stop, [units, removal.progress], {}) if units else None
    removal.progress.note(host, "stop", operations.carried_out(command, name="no unit of what goes runs"))


@stage("Remove")
def _take_away(removal: Removal) -> None:
    """Remove it on every host."""
    session = taking_away(removal.request, removal.progress)
    removal.progress.note(current_host(), "remove", operations.carried_out(session, name="what muster made is gone"))


def taking_away(request: Mapping[str, Any], progress: Progress) -> Session:
    """Return the command that takes away what `removal_request` describes, and says what it has removed."""
    name = current_host().name
    fenced = Later(lambda: {**request, "fence": progress.fence(name)})
    return Session("remove_muster", fenced, "remove what muster made", _report)


def _report(_state: State, host: Host, answer: Mapping[str, Any]) -> bool:
    """Print what was removed, and what a removal leaves."""
    say(host, f"removed {len(answer['removed'])} places")
    for note in answer["notes"]:
        say(host, f"note: {note}")
    return True
