"""`muster monitoring`: what a Prometheus needs to watch a group, written as plain files with no host in reach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from muster.commands import options, out_directory
from muster.monitoring import configuration, grafana
from muster.monitoring.watched import watched
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
@options.over_inventory(strategy=True)
@out_directory.option
def monitoring(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], out: Path) -> None:
    """Write what a Prometheus of your own needs to watch the group of RECIPE on INVENTORY's hosts: targets, alerts,
    configuration.

    Paths are those below /etc/prometheus; those in grafana/ are below /etc/grafana. Where prometheus.yml is yours
    already, take its scrape_configs and rule_files into it. Without RECIPE: all groups of INVENTORY, where they name
    theirs; groups of several inventories go into one directory too. deploys/monitoring.py installs the same on a host.
    """
    loaded = inventory_source.load(inventory_file, overrides)
    edges = inventory.edges_if_any(loaded)
    fleets = inventory.groups_for(loaded, recipe_name, name=inventory_file)
    groups = watched(fleets, recipe_name, edged=bool(edges))
    others = configuration.keyed_groups(_names(out))  # whose files of targets are there from other runs
    files = {
        **{f"grafana/{path}": text for path, text in grafana.files().items()},
        **configuration.files(groups, others, edges),
    }
    out_directory.write(out, files)
    click.echo(f"{len(files)} files under {out}", err=True)
    for name in sorted(groups.keyed):
        place = out / configuration.key_path(name)
        click.echo(f"the engine of {name} asks for the API key: put it, alone, into {place}")


def _names(out: Path) -> list[str]:
    """Return the files that name targets and are there already, of other groups too."""
    return [path.name for path in out.glob(configuration.target_path("*", "*"))]
