"""Monitoring: Prometheus and Alertmanager on the inventory's `monitor` group, exporters on the group's hosts.

Packages come from the distribution. Nothing of a serving group is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import FindFiles
from pyinfra.operations import apt

from muster.deploys.shared.services import differing, placing, require_apt
from muster.errors import Refusal
from muster.hosts import operations, programs
from muster.hosts.all_hosts import reached
from muster.hosts.once import OncePerRun
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.monitoring import configuration, machines
from muster.monitoring.machines import Machine
from muster.monitoring.monitor_access import require_access, require_edge_access
from muster.plan.prepare import from_bundle, plan_for
from muster.plan.types import Plan
from muster.plan.weights_path import served_path
from muster.spec import bundles, inventory, pins, secret_files
from muster.spec import recipe as recipes
from muster.spec.inventory import Fleet


@dataclass(frozen=True)
class Monitoring:
    """What one run brings to all machines."""

    plan: Plan
    fleet: Fleet
    monitors: Mapping[str, str]
    """Name -> address."""
    program: str
    """That each GPU host's timer runs."""
    api_key: str
    alertmanager: str
    edges: Mapping[str, str]
    """Name -> address."""


_runs: OncePerRun[Monitoring] = OncePerRun()


@stage("Monitoring")
def monitoring(recipe: str | None) -> None:
    """Bring Prometheus and exporters to the machines of an inventory; a second run changes nothing.

    Args:
        recipe: of the group that is watched.

    Raises:
        DeployError: no `monitor` group, a monitor that the hosts keep out, a machine without apt.
    """
    state, host = current_state(), current_host()
    run = _runs.get(state, recipe or "", lambda: _prepare(state, recipe))
    machine = _machine(run, host)
    missing = [name for name in machine.packages if name not in host.get_fact(DebPackages)]
    differs = differing(state, host, machines.TREE, machine)
    # A package starts its service at once: by then its arguments and the firewall are in place.
    operations.carried_out(
        placing(machines.TREE, machine.before_packages) if missing else None,
        name="arguments, units and firewall are in place before the services start",
    )
    apt.packages(
        name="packages of the distribution are installed",
        packages=list(machine.packages),
        update=bool(missing),
        no_recommends=True,
    )
    operations.carried_out(
        placing(machines.TREE, machine) if missing or differs else None,
        name="what is scraped, alerts and services are as planned",
    )


def _prepare(state: State, recipe: str | None) -> Monitoring:
    if not recipe:
        raise Refusal("no recipe", needed="the group that is watched", fix="--data _recipe=NAME")
    fleet = inventory.of_run(state.inventory)
    plan, monitors = plan_for(recipe, fleet), inventory.monitor_hosts(state.inventory)
    if not monitors:
        raise Refusal(
            "the inventory has no group `monitor`",
            needed="a machine for Prometheus",
            fix='monitor = [("mon-0", {"ssh_hostname": ...})] in the inventory; or muster monitoring --out',
        )
    edges = inventory.edges_if_any(state.inventory)
    require_access(plan, fleet.settings, monitors)
    if edges:
        require_edge_access(fleet.settings, monitors)
    require_apt(
        reached(state).values(),
        fix="install Prometheus or the node exporter there yourself, with the files of muster monitoring --out",
    )
    routes = fleet.settings.monitoring.alertmanager_file
    return Monitoring(
        plan,
        fleet,
        monitors,
        programs.bundle({"host_metrics": _measured(recipe, fleet)}, streams=True),
        secret_files.bare_api_key(fleet.settings.api_key_file),
        _text(routes) if routes else "",
        edges,
    )


def _measured(recipe_name: str, fleet: Fleet) -> dict[str, Any]:
    """Return what the timer's program is asked: where its file goes, and which weights must be as verified."""
    recipe = recipes.load(recipe_name).of_variant(fleet.settings.variant)
    listing = pins.read(recipe.pin, bundles.directory_of(fleet.settings), fleet.homes)
    directory = served_path(from_bundle(fleet.settings), pins.pinned(recipe, listing)) if listing else None
    weights = [{"directory": directory, "manifest": listing.digest}] if listing and directory else []
    return {"out": machines.METRICS_FILE, "weights": weights}


def _text(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise Refusal(f"{path} cannot be read: {error}", fix="correct the setting that names it") from None


def _machine(run: Monitoring, host: Host) -> Machine:
    machine, settings = Machine(), run.fleet.settings
    if host.name in run.plan.hosts:
        machine |= machines.gpu_host(settings, set(run.monitors.values()), run.program)
    if host.name in run.monitors:
        place = f"{machines.TREE}/{configuration.target_path('', '').rpartition('/')[0]}"
        there = [Path(path).name for path in host.get_fact(FindFiles, path=place) or ()]
        machine |= machines.monitor(
            run.plan,
            settings,
            keyed=configuration.keyed_groups(there),
            api_key=run.api_key,
            alertmanager=run.alertmanager,
            edges=run.edges,
        )
    return machine
