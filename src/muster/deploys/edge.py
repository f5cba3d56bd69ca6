"""The edge: HAProxy on the inventory's `edge` group, before the groups of the inventory.

The package comes from the distribution. Nothing of a serving group is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State
from pyinfra.facts.deb import DebPackages

from muster.deploys.shared.services import differing, install, placing, require_apt
from muster.edge import certificate, key_records
from muster.edge.edge_machine import edge_machine
from muster.edge.edge_plan import EdgeGroup, EdgePlan
from muster.edge.groups_behind import Behind, groups_behind
from muster.errors import Refusal
from muster.hosts import operations
from muster.hosts.all_hosts import reached
from muster.hosts.once import OncePerRun
from muster.hosts.program_operation import Session
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.hosts.run_programs import ask_all
from muster.hosts.say import fail, say
from muster.monitoring.machines import Machine
from muster.monitoring.monitor_access import require_access
from muster.on_host import edge_keys, edge_places
from muster.plan.endpoint import Endpoint
from muster.spec import inventory, inventory_source, secret_files

_PATIENCE = 3
"""Seconds for a connection to a group's port."""


@dataclass(frozen=True)
class _Run:
    """What one run brings to all edges.

    Args:
        machine: what each edge gets.
        keys: records of clients' keys, of all edges.
        stale: edges on whose disk, or in whose HAProxy, are others.
        notes: edge -> what is worth telling.
        plan: of the edge.
    """

    machine: Machine
    keys: edge_keys.Keys
    stale: frozenset[str]
    notes: Mapping[str, tuple[str, ...]]
    plan: EdgePlan


_runs: OncePerRun[_Run] = OncePerRun()


@stage("Edge")
def edge(recipe: str | None, *, after_groups: bool = False) -> None:
    """Bring HAProxy to the edge hosts of an inventory; a second run changes nothing.

    Args:
        recipe: of the one group behind it; None takes every group that names its recipe.
        after_groups: the same run brings the groups up before: whether the edge reaches them is asked only then.

    Raises:
        DeployError: no edge, a certificate that cannot be served, groups that no edge can serve or reach.
    """
    state, host = current_state(), current_host()
    run = _runs.get(state, recipe or "", lambda: _prepare(state, recipe, reach=not after_groups))
    is_edge = host.name in run.notes
    machine = run.machine if is_edge else Machine()
    for note in run.notes.get(host.name, ()):
        say(host, note)
    if after_groups:
        operations.holds(FunctionCommand(_reaches, [run], {}), name="the edge reaches the groups")
    missing = [name for name in machine.packages if name not in host.get_fact(DebPackages)]
    differs = bool(missing) or (is_edge and differing(state, host, edge_places.TREE, machine))
    install(
        edge_places.TREE,
        machine,
        missing,
        early="HAProxy starts with what it keeps of memory",
        packages="HAProxy of the distribution is installed",
    )
    stale = is_edge and (host.name in run.stale or bool(missing))
    operations.carried_out(_keys(run) if stale else None, name="keys of clients are those of all edges")
    operations.carried_out(
        placing(edge_places.TREE, machine) if differs else None,
        name="HAProxy has accepted its configuration, and serves with it",
    )
    # A key that was added between the start of the new HAProxy and its reading of the map would be missing in it.
    operations.carried_out(_keys(run) if differs else None, name="keys of clients are in effect")


def _keys(run: _Run) -> Session:
    return Session("edge_keys", {"do": "write", "keys": run.keys}, f"merge the records of {len(run.keys)} keys")


def require_edge(given: Inventory, recipe: str | None = None) -> tuple[Behind, Machine]:
    """Return what the edges of an inventory are before, and what each gets, with no host asked.

    Args:
        given: as pyinfra loaded it.
        recipe: as for `edge`.

    Raises:
        Refusal: no edge, a certificate that cannot be served, groups that no edge can serve.
    """
    inventory_source.require_all_read(given)
    behind = groups_behind(inventory.groups_for(given, recipe, name="inventory"), recipe)
    edges = inventory.edge_hosts(given)
    _require_free_port(behind, edges)
    served, keys = _certificate(behind.plan), engine_keys(behind.plan)
    for group, plan in behind.plans.items():
        require_access(plan, behind.settings[group], edges)
    return behind, edge_machine(behind.plan, served, keys)


def _prepare(state: State, recipe: str | None, *, reach: bool) -> _Run:
    behind, machine = require_edge(state.inventory, recipe)
    edges = inventory.edge_hosts(state.inventory)
    hosts = [host for name, host in reached(state).items() if name in edges]
    require_apt(hosts, fix="install HAProxy 2.4 or newer there yourself, with the files of muster edge --out")
    notes = _reached(state, hosts, behind.plan) if reach else {host.name: () for host in hosts}
    answers = ask_all(state, hosts, "edge_keys", {"do": "read"})
    merged = key_records.of_edges(answers)
    stale = {name for name, answer in answers.items() if answer["keys"] != merged or not answer["current"]}
    told = {name: (*notes[name], *answer["notes"]) for name, answer in answers.items()}
    return _Run(machine, merged, frozenset(stale), told, behind.plan)


def _reaches(state: State, host: Host, run: _Run) -> bool:
    """Ask one edge, once the groups serve."""
    if host.name not in run.notes:
        return True
    try:
        for note in _reached(state, [host], run.plan)[host.name]:
            say(host, note)
    except Refusal as refusal:
        fail(host, str(refusal))
        return False
    return True


def engine_keys(plan: EdgePlan) -> dict[str, str]:
    """Return model -> the key of its engines, of those that ask for one.

    Raises:
        Refusal: as of the files that hold them.
    """
    files = {model: groups[0].api_key_file for model, groups in plan.models.items()}
    return {model: secret_files.bare_api_key(path) for model, path in files.items() if path}


def _certificate(plan: EdgePlan) -> str:
    paths = plan.settings.certificate_file, plan.settings.certificate_key_file
    if paths[0] is None or paths[1] is None:
        raise Refusal(
            "edge_certificate_file or edge_certificate_key_file is not set",
            needed="a certificate and its key: the edge serves nothing without TLS",
            fix="name both; docs/edge.md says how to come by them",
        )
    chain, key = secret_files.read(paths[0]), secret_files.read(paths[1])
    now = datetime.now(timezone.utc)
    return certificate.served(chain, key, plan.settings.names, now, where=(paths[0], paths[1]))


def _require_free_port(behind: Behind, edges: Mapping[str, str]) -> None:
    settings = behind.plan.settings
    for plan in behind.plans.values():
        for name in plan.hosts.keys() & edges.keys():
            for setting, port in (("edge_port", settings.port), ("edge_monitor_port", settings.monitor_port)):
                if port in plan.hosts[name].ports:
                    raise Refusal(
                        f"{name}: {plan.group} and the edge both listen on port {port}",
                        fix=f"another {setting}, or another host for the edge",
                    )


def _reached(state: State, hosts: list[Host], plan: EdgePlan) -> dict[str, tuple[str, ...]]:
    """Return edge -> what it does not reach of groups whose models others serve.

    Raises:
        Refusal: an edge that reaches no group of a model.
    """
    ports = {words: (endpoint.address, endpoint.port) for group in plan.groups for words, endpoint in _ports(group)}
    answers = ask_all(state, hosts, "reach_ports", {"ports": ports, "patience": _PATIENCE})
    notes: dict[str, tuple[str, ...]] = {}
    for name, answer in answers.items():
        unreached: Mapping[str, Any] = answer["unreached"]
        for model, groups in plan.models.items():
            lacking = {group.name: [words for words, _ in _ports(group) if words in unreached] for group in groups}
            if all(lacking.values()):
                raise Refusal(
                    f"{name} reaches no group of {model}: "
                    + "; ".join(f"{words}: {unreached[words]}" for lost in lacking.values() for words in lost),
                    needed="the guard's /ready and the engine of one group at least",
                    fix="are the hosts on, routed, and deployed with the edge in monitor_networks and client_networks?",
                )
        notes[name] = tuple(f"not reached from here: {words}: {why}" for words, why in unreached.items())
    return notes


def _ports(group: EdgeGroup) -> list[tuple[str, Endpoint]]:
    """Return every port of a group that an edge must reach, in words."""
    control = (f"control port {group.control.at} of {group.control.host} ({group.name})", group.control)
    return [control, *((f"{each.at} of {each.host} ({group.name})", each) for each in group.endpoints)]
