"""`muster plan`: what every host would get, printed with no host in reach."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from muster.commands import options
from muster.commands.plan_text import as_json, as_text
from muster.plan.prepare import plan_for
from muster.plan.types import Plan
from muster.spec import bundles, inventory, pins, recipe


@click.command(
    epilog="""\b
Examples:
  muster plan inventories/h200-16.py kimi-k2-instruct
  muster plan inventories/h200-16.py kimi-k2-instruct --strategy tp-pp --data executor=mp
  muster plan inventories/h20-8.py kimi-k2-thinking --format json | jq .digest
  muster plan inventories/h800-16.py kimi-k2-instruct --out /tmp/plan
"""
)
@options.over_inventory(strategy=True)
@options.output_format("text", "json")
@click.option("--out", type=click.Path(file_okay=False), help="Write every host's files under DIR/<host>/.")
def plan(inventory_file: str, recipe_name: str, overrides: Mapping[str, Any], form: str, out: str | None) -> None:
    """Print what every host of INVENTORY would get for RECIPE: commands, environment, files, order, memory."""
    fleet = inventory.from_path(inventory_file, overrides)
    result = plan_for(recipe_name, fleet)
    chosen = recipe.load(recipe_name).of_variant(fleet.settings.variant)
    pin = pins.path_in_use(chosen.pin, bundles.directory_of(fleet.settings), fleet.homes)
    sources = tuple(
        _shortest(path) for path in (Path(inventory_file).resolve(), *fleet.files, *([pin.resolve()] if pin else []))
    )
    if out:
        count = write_files(result, Path(out))
        click.echo(f"{count} files under {out}", err=True)
    click.echo(json.dumps(as_json(result, sources), indent=2) if form == "json" else as_text(result, sources))


def _shortest(path: Path) -> str:
    """Return a path relative to the working directory if it is below it, else absolute."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def write_files(plan: Plan, out: Path) -> int:
    """Write each host's files under `out/<host>/<absolute path>` and return how many there are."""
    count = 0
    for name, host in plan.hosts.items():
        for path, file in host.files.items():
            target = out / name / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.text, encoding="utf-8")
            target.chmod(int(file.mode, 8))
            count += 1
    return count
