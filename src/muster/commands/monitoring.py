"""`muster monitoring`: what a Prometheus needs to watch a group, written as plain files with no host in reach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from muster.commands import options, out_directory
from muster.monitoring import configuration, grafana
from muster.plan.fleet import plan_fleet
from muster.plan.prepare import plan_for
from muster.spec import inventory, inventory_source


@click.command(
    epilog="""\b
Examples:
  muster monitoring inventories/h200-16.py kimi-k2-instruct --out prometheus
  muster monitoring inventories/fleet.py --out prometheus
  promtool check config prometheus/prometheus.yml
  pyinfra inventories/mine.py deploys/monitoring.py --data _recipe=kimi-k2-instruct
"""
)
@options.over_inventory(recipe=False, strategy=True, group=True)
@out_directory.option
def monitoring(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], out: Path) -> None:
    """Write what a Prometheus of your own needs to watch the group of RECIPE on INVENTORY's hosts: targets, alerts,
    configuration.

    Paths are those below /etc/prometheus; those in grafana/ are below /etc/grafana. Where prometheus.yml is yours
    already, take its scrape_configs and rule_files into it. Without RECIPE: all groups of INVENTORY, where they name
    theirs; groups of several inventories go into one directory too. deploys/monitoring.py installs the same on a host.
    """
    loaded = inventory_source.load(inventory_file, overrides)
    if options.means_all_groups(recipe_name, overrides):
        groups = inventory.groups_of(loaded, name=inventory_file)
        fleet = plan_fleet(groups)
        watched = [(plan, groups[name].settings) for name, plan in fleet.plans.items()]
    else:
        group = inventory.from_pyinfra(loaded, name=inventory_file, recipe=recipe_name)
        watched = [(plan_for(inventory.recipe_of(recipe_name, group), group), group.settings)]
    keyed = {
        *configuration.keyed_groups(_names(out)),  # whose files of targets are there from other runs
        *(plan.group for plan, _ in watched if plan.api_key_path),
    }
    files = {f"grafana/{path}": text for path, text in grafana.files().items()}
    for plan, settings in watched[:-1]:
        files |= configuration.target_files(plan, settings)
    files |= configuration.files(*watched[-1], keyed, inventory.edges_if_any(loaded))
    out_directory.write(out, files)
    click.echo(f"{len(files)} files under {out}", err=True)
    for plan, _ in watched:
        if plan.api_key_path:
            place = out / configuration.key_path(plan.group)
            click.echo(f"the engine of {plan.group} asks for the API key: put it, alone, into {place}")


def _names(out: Path) -> list[str]:
    """Return the files that name targets and are there already, of other groups too."""
    return [path.name for path in out.glob(configuration.target_path("*", "*"))]
