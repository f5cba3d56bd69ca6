"""`muster edge`: HAProxy's files for a group, written as plain files with no host in reach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from muster.commands import options, out_directory
from muster.edge import admission, haproxy_files
from muster.edge.groups_behind import groups_behind
from muster.on_host import edge_places
from muster.spec import inventory, inventory_source


@click.command(
    epilog="""\b
Examples:
  muster edge inventories/h200-16.py kimi-k2-instruct --out edge
  muster edge inventories/fleet.py --out edge
  pyinfra inventories/mine.py deploys/edge.py --data _recipe=kimi-k2-instruct
"""
)
@options.over_inventory(strategy=True)
@out_directory.option
def edge(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], out: Path) -> None:
    """Write what an HAProxy needs before the group of RECIPE on INVENTORY's hosts: configuration and map of models.

    Without RECIPE: before every group that names its own. Paths are those below /etc/haproxy. Certificate and
    keys are secrets and are not written: deploys/edge.py brings them to the edge hosts, with the same files.
    """
    groups = inventory.groups_for(inventory_source.load(inventory_file, overrides), recipe_name, name=inventory_file)
    plan = groups_behind(groups, recipe_name).plan
    files = haproxy_files.files(plan)
    out_directory.write(out, files)
    click.echo(f"{len(files)} files under {out}", err=True)
    for line in admission.lines(plan):
        click.echo(line, err=True)
    missing = (
        edge_places.CERTIFICATE,
        edge_places.KEY_MAP,
        *([edge_places.ENGINE_KEYS] if any(group.api_key_file for group in plan.groups) else []),
    )
    click.echo(f"still needed in {out}/{edge_places.OWN}: {', '.join(missing)}", err=True)
