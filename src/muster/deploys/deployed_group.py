"""Which group is deployed on the hosts, found by their manifests: acting on it needs no recipe."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gevent
from pyinfra import logger
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.edge_drain import EdgeDrain
from muster.deploys.shared import can_return
from muster.deploys.shared.guard_commands import reply
from muster.deploys.shared.progress import Progress
from muster.deploys.way_out import way_out
from muster.errors import Refusal
from muster.hosts.all_hosts import each, reached
from muster.hosts.run_programs import run_program, run_programs
from muster.hosts.run_words import words
from muster.plan import change as changes
from muster.plan import key_parity, manifest
from muster.plan.change import Found
from muster.plan.plan_history import KeptPlan, history
from muster.spec import inventory, inventory_source
from muster.spec.inventory import Scope
from muster.spec.inventory_groups import BY_NAME

_NEXT_LIFE_SECONDS = 15.0
"""From the end of a guard's life to the next one's answer: 6 s on two busy cores."""
_PROBE_SECONDS = 150


@dataclass(frozen=True)
class DeployedGroup:
    """One group, from the manifests on its hosts.

    Args:
        group: its name.
        units: host -> its units, in start order.
        progress: shared by the hosts of this run.
        guarded: whether guards run the ranks.
        drain_seconds: how long a deliberate stop waits for requests in flight.
        guards: host -> status of its guard, where one answers.
        digest: of the plan that all of its hosts have.
        history: the verified plans that its hosts keep.
        head: the host with the endpoint; empty where a stop does without it.
        unreached: hosts that a stop does without.
        stale: hosts on which systemd is behind the files of the group's units.
        found: host -> what it showed of changes.
        drain: how it gets out of the edges of its fleet before it is stopped; None where it does not.
        manifests: host -> what it says of the group.
    """

    group: str
    units: Mapping[str, tuple[str, ...]]
    progress: Progress
    guarded: bool = False
    drain_seconds: int = 0
    guards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    digest: str = ""
    history: tuple[KeptPlan, ...] = ()
    head: str = ""
    unreached: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    found: Mapping[str, Found] = field(default_factory=dict)
    drain: EdgeDrain | None = None
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def group_status(self) -> Mapping[str, Any]:
        """The group as the head's guard sees it; empty where none answers."""
        return self.guards.get(self.head, {}).get("group") or {}


def at_rest(status: Mapping[str, Any]) -> bool:
    """Whether a group, by its status at the head, is known to be stopped already, and no process of it is left."""
    return status.get("phase") == "stopped" and all(member["child"] == "none" for member in status["members"])


def find(state: State, command: str, recipe: str | None) -> DeployedGroup:
    """Ask the hosts which group is there, and what each has of it; nothing is changed.

    Args:
        state: pyinfra's.
        command: `stop`, `restart` or `resume`; a stop does without hosts that are off.
        recipe: of the group; None where the hosts have one group, or the run names it.

    Raises:
        Refusal: no group or several fit; a host does not answer, or hosts are missing, and this is no stop; what is on
            the hosts would not start again.
    """
    scope = inventory.scope_of(state.inventory, recipe)
    hosts = reached_in(state, scope)
    answers = each(hosts.values(), lambda host: run_program(state, host, "probe_group", {}, seconds=_PROBE_SECONDS))
    silent = {name: answer["error"] for name, answer in answers.items() if "error" in answer}
    if silent and (command != "stop" or len(silent) == len(hosts)):
        name, error = next(iter(silent.items()))
        raise Refusal(f"{name}: {error}", needed="a host that answers over SSH")
    manifests = {name: answer["groups"] for name, answer in answers.items() if name not in silent}
    group = meant(scope, hosts, manifests, recipe)
    own = {name: groups[group] for name, groups in manifests.items() if group in groups}
    first = next(iter(own.values()))
    words.about(inventory_source.path_of(state.inventory), str(first.get("recipe", "")), scope.name)
    found = changes.seen({name: answers[name]["changes"].get(group, {}) for name in manifests})
    changes.require_free(group, found)
    cut = changes.unfinished(found)
    if cut is not None:
        logger.warning(cut.sentence)
    looks = _look(state, [hosts[name] for name in manifests], group)
    seen = {name: answers["probe_group"] for name, answers in looks.items()}
    without = [name for name in manifests if name not in own and seen[name].get("units")]
    if command != "stop":
        _require_startable(group, own, {name: seen[name] for name in (*own, *without)})
    limit = {host.name for host in state.inventory if state.is_host_in_limit(host)}
    unreached = sorted((limit & scope.hosts) - manifests.keys())
    deployed = from_manifests(group, own, unreached, without=without if command == "stop" else None)
    status = {name: answers["ask_guard"].get("answer") or {"error": ""} for name, answers in looks.items()}
    head = deployed.head
    # A resume lifts the hold whatever the guards say.
    asks = deployed.guarded and command != "resume"
    if asks and "error" in status.get(head, {}) and is_between_lives(seen[head]):
        status[head] = _guard_in_its_next_life(state, hosts[head], group)
    deployed = replace(
        deployed,
        found=found,
        guards={name: answer for name, answer in status.items() if deployed.guarded and "error" not in answer},
        history=history({name: looks[name]["kept_plans"].get("plans", ()) for name in own}),
        stale=tuple(name for name in own if any(unit.get("reload") for unit in seen[name].get("units", {}).values())),
    )
    if command == "resume" or at_rest(deployed.group_status):
        return deployed
    returns = deployed.manifests if command == "restart" else {}
    return replace(deployed, drain=way_out(state, scope, deployed.drain_seconds, returns))


def is_between_lives(seen: Mapping[str, Any]) -> bool:
    """Whether systemd is ending a guard that does not answer, or about to start it anew, or has just done so.

    Args:
        seen: of `muster.on_host.probe_group`, on its host.
    """
    return any(
        unit.get("active") in ("deactivating", "activating", "active") for unit in seen.get("units", {}).values()
    )


def _guard_in_its_next_life(state: State, host: Host, group: str) -> Mapping[str, Any]:
    """Return what the head's guard says within some seconds: a generation that has just ended took its life with it."""
    until = time.monotonic() + _NEXT_LIFE_SECONDS
    while True:
        answer = reply(state, host, {"group": group, "command": "status"})
        if "error" not in answer or time.monotonic() > until:
            return answer
        gevent.sleep(0.5)


def reached_in(state: State, scope: Scope) -> dict[str, Host]:
    """Return inventory name -> host, of those reached that may be of the group that a run is about."""
    return {name: host for name, host in reached(state).items() if name in scope.hosts}


Looks = dict[str, Mapping[str, Any]]


def _look(state: State, hosts: Sequence[Host], group: str) -> Looks:
    """Ask hosts, all at once, what they have of a group, which plans they keep, and for their guard's status."""
    requests: dict[str, dict[str, Any]] = {
        "probe_group": {"group": group, "secrets": [key_parity.guard_key(group)]},
        "kept_plans": {"do": "list", "group": group},
        "ask_guard": {"group": group, "command": "status"},
    }
    return each(hosts, lambda host: run_programs(state, host, requests, seconds=_PROBE_SECONDS))


def _require_startable(group: str, manifests: Mapping[str, Mapping[str, Any]], seen: Looks) -> None:
    """Refuse to take a group down, or to start it, that could not come up.

    Raises:
        Refusal: why not, every reason on every host.
    """
    found = [f"{name}: {answer['error']}" for name, answer in seen.items() if "error" in answer]
    whole = {name: answer for name, answer in seen.items() if "error" not in answer}
    found += can_return.obstacles(group, whole, {name: str(each.get("digest")) for name, each in manifests.items()})
    if found:
        raise Refusal(
            f"group {group} could not start again:\n  " + "\n  ".join(found),
            needed="on every host units, keys and files of one plan, as a deploy leaves them; nothing was touched",
            fix="unmask what is masked (systemctl unmask UNIT), then run the recipe's deploy: it writes the rest again",
        )


def meant(
    scope: Scope, hosts: Mapping[str, Host], manifests: Mapping[str, Mapping[str, Any]], recipe: str | None
) -> str:
    """Return the name of the group that is meant, by the command, the inventory or the data of its hosts.

    Args:
        scope: of the run.
        hosts: of the run, by name.
        manifests, recipe: as for `choose`.

    Raises:
        Refusal: as `choose` refuses; the hosts have nothing of the group that the inventory names.
    """
    if scope.name and not any(scope.name in groups for groups in manifests.values()):
        raise Refusal(
            f"{scope.name} is on none of its hosts: {', '.join(manifests) or 'none was reached'}",
            needed="a group that is deployed",
            fix=f"muster deploy INVENTORY --group {scope.name}",
        )
    if scope.name:
        return scope.name
    data = next(iter(hosts.values())).data
    return choose(manifests, group=data.get("group"), recipe=recipe or data.get("recipe"))


def choose(manifests: Mapping[str, Mapping[str, Any]], *, group: str | None, recipe: str | None) -> str:
    """Return the name of the group that is meant.

    Args:
        manifests: host -> group -> manifest.
        group, recipe: as the user named them, if at all.

    Raises:
        Refusal: none is there, or several and nothing says which.
    """
    recipes = {name: manifest.get("recipe", "") for groups in manifests.values() for name, manifest in groups.items()}
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
        fix=f"name its RECIPE, or {BY_NAME.format('NAME')}" if recipes else "deploy a recipe first",
    )


def from_manifests(
    group: str,
    manifests: Mapping[str, Mapping[str, Any]],
    unreached: Sequence[str],
    without: Sequence[str] | None = None,
) -> DeployedGroup:
    """Return the group that the manifests of its hosts describe together.

    Args:
        group: its name.
        manifests: host -> manifest.
        unreached: hosts of this run without an SSH session.
        without: hosts with the group's units and no manifest; given where the group need not be whole, for a stop.

    Raises:
        Refusal: hosts are missing, or differ in their plan; a manifest is not whole, or speaks for another host.
    """
    manifests = {host: _own_part(group, host, each_manifest) for host, each_manifest in manifests.items()}
    first = next(iter(manifests.values()))
    hosts = sorted(manifests, key=lambda name: int(manifests[name]["node_rank"]))
    shapes = {(each_manifest["digest"], len(each_manifest["steps"])) for each_manifest in manifests.values()}
    partial = without is not None and len(hosts) + len(unreached) + len(without) >= first["hosts"]
    if not partial and (len(hosts) != first["hosts"] or len(shapes) > 1):
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
    guarded = bool(first.get("heals"))
    steps = () if partial else manifest.steps(manifests)
    units = {name: tuple(each_manifest["units"]) for name, each_manifest in manifests.items()}
    others = tuple(without or ()) if partial else ()
    return DeployedGroup(
        group,
        units | {name: tuple(first["units"]) for name in others if guarded},
        Progress((*hosts, *others), steps, int(first["ready_timeout"]), group if guarded else ""),
        guarded=guarded,
        drain_seconds=int(first.get("drain_seconds", 0)),
        digest=str(first["digest"]),
        head=next((name for name, each_manifest in manifests.items() if int(each_manifest["node_rank"]) == 0), ""),
        unreached=tuple(unreached) if partial else (),
        manifests=manifests,
    )


_NEEDED = ("recipe", "digest", "label", "host", "hosts", "node_rank", "units", "steps", "ready_timeout")


def _own_part(group: str, host: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest under its host's name in this inventory.

    Raises:
        Refusal: it is not whole, or plans work for another host; a check may be a command.
    """
    path = f"{host}: /etc/muster/{group}/plan.json"
    lacking = [key for key in _NEEDED if key not in manifest]
    if lacking:
        raise Refusal(
            f"{path} has no {', '.join(lacking)}",
            needed="a manifest as this muster writes it",
            fix="run the recipe's deploy, which writes it again",
        )
    foreign = {check["host"] for step in manifest["steps"] for check in step["checks"]} - {manifest["host"]}
    if foreign:
        raise Refusal(
            f"{path} has checks for {', '.join(sorted(foreign))}",
            needed="manifests in which each host plans its own part only",
            fix="find out who wrote it; the recipe's deploy writes it again",
        )
    steps = [{**step, "checks": [{**check, "host": host} for check in step["checks"]]} for step in manifest["steps"]]
    return {**manifest, "steps": steps}
