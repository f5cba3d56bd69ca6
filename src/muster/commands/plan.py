"""`muster plan`: what every host would get, printed with no host in reach."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from muster.commands import fleet_text, options
from muster.commands.plan_text import as_json, as_text
from muster.commands.recipe import is_model, of_model
from muster.edge import admission
from muster.edge.groups_behind import seen_by_edge
from muster.plan.fleet import plan_fleet
from muster.plan.prepare import plan_of
from muster.plan.types import Plan
from muster.spec import bundles, inventory, inventory_source, pins, recipe
from muster.spec.inventory import Fleet, recipe_of
from muster.spec.recipe import Recipe
from muster.spec.settings import Settings


@click.command(
    epilog="""\b
Examples:
  muster plan inventories/h200-16.py kimi-k2-instruct
  muster plan inventories/h200-16.py kimi-k2-instruct --strategy tp-pp --data executor=mp
  muster plan inventories/h200-8.py Qwen/Qwen3-32B
  muster plan inventories/h20-8.py kimi-k2-thinking --format json | jq .digest
  muster plan inventories/h800-16.py kimi-k2-instruct --out /tmp/plan
  muster plan inventories/fleet.py
  muster plan inventories/fleet.py --group kimi-a
"""
)
@options.over_inventory(strategy=True)
@options.output_format("text", "json")
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False), help="config.json of ORG/MODEL; else the hub's."
)
@click.option("--out", type=click.Path(file_okay=False), help="Write every host's files under DIR/<host>/.")
def plan(
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    config: str | None,
    form: str,
    out: str | None,
) -> None:
    """Print what every host of INVENTORY would get for RECIPE: commands, environment, files, order, memory.

    In the place of a recipe ORG/MODEL plans from the model's own config.json, to look. Without RECIPE: a row for each
    group of INVENTORY, where they name theirs; with --group what one of them gets.
    """
    loaded = inventory_source.load(inventory_file, overrides)
    if options.means_all_groups(recipe_name, overrides):
        _all_groups(inventory_file, inventory.groups_of(loaded, name=inventory_file), form, out)
        return
    fleet = inventory.from_pyinfra(loaded, name=inventory_file, recipe=recipe_name)
    chosen = _recipe(recipe_of(recipe_name, fleet), config, fleet.settings).of_variant(fleet.settings.variant)
    result = plan_of(chosen, fleet)
    pin = pins.path_in_use(chosen.pin, bundles.directory_of(fleet.settings), fleet.homes)
    sources = _sources(inventory_file, (*fleet.files, *([pin.resolve()] if pin else [])))
    if out:
        count = write_files(result, Path(out))
        click.echo(f"{count} files under {out}", err=True)
    click.echo(json.dumps(as_json(result, sources), indent=2) if form == "json" else as_text(result, sources))


def _all_groups(inventory_file: str, groups: Mapping[str, Fleet], form: str, out: str | None) -> None:
    plans = plan_fleet(groups)
    sources = _sources(inventory_file, dict.fromkeys(path for group in groups.values() for path in group.files))
    if out:
        count = sum(write_files(each, Path(out)) for each in plans.plans.values())
        click.echo(f"{count} files under {out}", err=True)
    if form == "json":
        click.echo(json.dumps(fleet_text.as_json(plans, sources), indent=2))
    else:
        behind = seen_by_edge(plans.plans, {name: group.settings for name, group in groups.items()})
        click.echo(fleet_text.as_text(plans, inventory_file, sources, admission.without_largest(behind)))


def _sources(inventory_file: str, paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(_shortest(path) for path in (Path(inventory_file).resolve(), *paths))


def _recipe(name: str, config: str | None, settings: Settings) -> Recipe:
    if not is_model(name):
        return recipe.load(name)
    made, notes = of_model(
        name, config, endpoint=settings.hf_endpoint, proxy=settings.proxy, token_file=settings.weights.token_file
    )
    for line in notes:
        click.echo(f"{name}: {line}", err=True)
    return made


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
