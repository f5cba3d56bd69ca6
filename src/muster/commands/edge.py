"""`muster edge`: HAProxy's files for a group, written as plain files with no host in reach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from muster.commands import options
from muster.edge import haproxy_files
from muster.edge.edge_plan import edge_group, edge_plan
from muster.on_host import edge_places
from muster.plan.prepare import plan_for
from muster.spec import inventory


@click.command(
    epilog="""\b
Examples:
  muster edge inventories/h200-16.py kimi-k2-instruct --out edge
  pyinfra inventories/mine.py deploys/edge.py --data _recipe=kimi-k2-instruct
"""
)
@options.over_inventory(strategy=True)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Directory of the files.")
def edge(inventory_file: str, recipe_name: str, overrides: Mapping[str, Any], out: Path) -> None:
    """Write what an HAProxy needs before the group of RECIPE on INVENTORY's hosts: configuration and map of models.

    Paths are those below /etc/haproxy. Certificate and keys are secrets and are not written: deploys/edge.py brings
    them to the edge hosts, with the same files.
    """
    fleet = inventory.from_path(inventory_file, overrides)
    group = edge_group(plan_for(recipe_name, fleet), fleet.settings)
    files = haproxy_files.files(edge_plan([group], fleet.settings.edge))
    for path, text in files.items():
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    click.echo(f"{len(files)} files under {out}", err=True)
    missing = (edge_places.CERTIFICATE, edge_places.KEY_MAP, *([edge_places.ENGINE_KEYS] if group.api_key_file else []))
    click.echo(f"still needed in {out}/{edge_places.OWN}: {', '.join(missing)}", err=True)
