"""Monitoring: Prometheus and Alertmanager on the inventory's `monitor` group, exporters on the hosts of its groups.

Packages come from the distribution. Nothing of a serving group is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import FindFiles

from muster.deploys.shared.services import differing, install, placing, require_apt
from muster.errors import Refusal
from muster.hosts import operations, programs
from muster.hosts.all_hosts import reached
from muster.hosts.once import OncePerRun
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.monitoring import configuration, machines
from muster.monitoring.machines import Machine
from muster.monitoring.monitor_access import require_access, require_edge_access
from muster.monitoring.watched import Watched, watched
from muster.plan.prepare import from_bundle
from muster.plan.weights_path import served_path
from muster.spec import bundles, inventory, inventory_groups, inventory_source, pins, secret_files
from muster.spec import recipe as recipes
from muster.spec.inventory import Fleet
from muster.spec.settings import Settings

Weights = Mapping[str, str]
"""Of one group on a host, as the timer's program is asked about them."""


@dataclass(frozen=True)
class _Run:
    """What one run brings to all machines.

    Args:
        watched: the groups.
        monitors, edges: name -> address.
        measured: GPU host -> settings of one of its groups, and which weights must be there as they were verified.
        api_keys: group -> its key, of those that have one.
        alertmanager: the user's alertmanager.yml.
    """

    watched: Watched
    monitors: Mapping[str, str]
    edges: Mapping[str, str]
    measured: Mapping[str, tuple[Settings, tuple[Weights, ...]]]
    api_keys: Mapping[str, str]
    alertmanager: str


_runs: OncePerRun[_Run] = OncePerRun()


@stage("Monitoring")
def monitoring(recipe: str | None) -> None:
    """Bring Prometheus and exporters to the machines of an inventory; a second run changes nothing.

    Args:
        recipe: of the group that is watched; None takes every group that names its recipe.

    Raises:
        DeployError: no `monitor` group, a monitor that the hosts keep out, a machine without apt.
    """
    state, host = current_state(), current_host()
    run = _runs.get(state, recipe or "", lambda: _prepare(state, recipe))
    machine = _machine(run, host)
    missing = [name for name in machine.packages if name not in host.get_fact(DebPackages)]
    differs = differing(state, host, machines.TREE, machine)
    install(
        machines.TREE,
        machine,
        missing,
        early="arguments, units and firewall are in place before the services start",
        packages="packages of the distribution are installed",
    )
    operations.carried_out(
        placing(machines.TREE, machine) if missing or differs else None,
        name="what is scraped, alerts and services are as planned",
    )


def _prepare(state: State, recipe: str | None) -> _Run:
    given = state.inventory
    inventory_source.require_all_read(given)
    if not recipe and not inventory_groups.recipes(given):
        raise Refusal("no recipe", needed="the group that is watched", fix="--data _recipe=NAME")
    fleets = inventory.groups_for(given, recipe, name="inventory")
    monitors, edges = inventory.monitor_hosts(given), inventory.edges_if_any(given)
    if not monitors:
        raise Refusal(
            "the inventory has no group `monitor`",
            needed="a machine for Prometheus",
            fix='monitor = [("mon-0", {"ssh_hostname": ...})] in the inventory; or muster monitoring --out',
        )
    groups = watched(fleets, recipe, edged=bool(edges))
    for plan, settings in groups.groups:
        require_access(plan, settings, monitors)
    if edges:
        require_edge_access([settings for _, settings in groups.groups], monitors)
    measured = _measured(groups, fleets, recipe)
    here = [host for name, host in reached(state).items() if name in monitors or name in measured]
    require_apt(
        here, fix="install Prometheus or the node exporter there yourself, with the files of muster monitoring --out"
    )
    routes = groups.monitoring.alertmanager_file
    keys = {plan.group: secret_files.bare_api_key(settings.api_key_file) for plan, settings in groups.groups}
    return _Run(
        groups,
        monitors,
        edges,
        measured,
        {group: key for group, key in keys.items() if key},
        _text(routes) if routes else "",
    )


def _measured(
    groups: Watched, fleets: Mapping[str, Fleet], recipe: str | None
) -> dict[str, tuple[Settings, tuple[Weights, ...]]]:
    measured: dict[str, tuple[Settings, tuple[Weights, ...]]] = {}
    for (plan, settings), fleet in zip(groups.groups, fleets.values(), strict=True):
        weights = _weights(plan.group, inventory.recipe_of(recipe, fleet), fleet)
        for name in plan.hosts:
            first, others = measured.get(name, (settings, ()))
            measured[name] = first, (*others, *weights)
    return measured


def _weights(group: str, recipe_name: str, fleet: Fleet) -> tuple[Weights, ...]:
    recipe = recipes.load(recipe_name).of_variant(fleet.settings.variant)
    listing = pins.read(recipe.pin, bundles.directory_of(fleet.settings), fleet.homes)
    directory = served_path(from_bundle(fleet.settings), pins.pinned(recipe, listing)) if listing else None
    if not listing or not directory:
        return ()
    return ({"group": group, "directory": directory, "manifest": listing.digest},)


def _text(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise Refusal(f"{path} cannot be read: {error}", fix="correct the setting that names it") from None


def _machine(run: _Run, host: Host) -> Machine:
    machine = Machine()
    if host.name in run.measured:
        settings, weights = run.measured[host.name]
        request = {"out": machines.METRICS_FILE, "weights": weights}
        program = programs.bundle({"host_metrics": request}, streams=True)
        machine |= machines.gpu_host(settings, set(run.monitors.values()), program)
    if host.name in run.monitors:
        place = f"{machines.TREE}/{configuration.target_path('', '').rpartition('/')[0]}"
        there = [Path(path).name for path in host.get_fact(FindFiles, path=place) or ()]
        machine |= machines.monitor(
            run.watched,
            keyed=configuration.keyed_groups(there),
            api_keys=run.api_keys,
            alertmanager=run.alertmanager,
            edges=run.edges,
        )
    return machine
