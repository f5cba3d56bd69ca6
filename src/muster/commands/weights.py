"""`muster weights`: what the hosts have, reading all of it again, and removing what nothing uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from muster.commands import options
from muster.errors import Refusal
from muster.on_host.in_words import size
from muster.plan import loaders
from muster.plan.prepare import plans_for
from muster.plan.types import Plan
from muster.plan.weights_path import revision_path
from muster.spec import inventory, pins, recipe
from muster.spec.inventory import Fleet
from muster.spec.listing import Listing
from muster.weights import ask_hosts

Answers = Mapping[str, Mapping[str, Any]]


@click.group()
def weights() -> None:
    """Weights on the hosts: status, verify, prune. Staging itself is deploys/stage_weights.py."""


@weights.command()
@options.over_inventory()
def status(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any]) -> None:
    """Say what every host of INVENTORY has of RECIPE's revision, and how long an engine reads it from a cold disk; no
    file is read."""
    fleet, listing, answers = _ask(inventory_file, recipe_name, overrides, {"do": "probe"})
    plan = next(plans_for(inventory.recipe_of(recipe_name, fleet), fleet), None)
    click.echo(f"{listing.model} at {listing.revision}: {len(listing.files)} files, {size(listing.size)}")
    for line in status_lines(listing, answers, plan):
        click.echo(line)


@weights.command()
@options.over_inventory()
@click.pass_context
def verify(ctx: click.Context, inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any]) -> None:
    """Read every byte on every host again; exit 1 if anything is wrong, which the next staging repairs."""
    *_, answers = _ask(inventory_file, recipe_name, overrides, {"do": "verify"}, files=True)
    bad = False
    for host, answer in answers.items():
        wrong = [
            *(f"{path}: {why}" for path, why in answer["wrong"].items()),
            *(f"{p}: not in the manifest" for p in answer["extra"]),
        ]
        bad = bad or bool(wrong)
        click.echo(
            f"{host}: {answer['files']} files, {size(answer['bytes'])}: " + ("all right" if not wrong else "WRONG")
        )
        for line in wrong:
            click.echo(f"  {line}")
    ctx.exit(1 if bad else 0)


@weights.command()
@options.over_inventory()
@click.option("--dry", is_flag=True, help="Only say what would go.")
def prune(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], dry: bool) -> None:
    """Remove every revision of RECIPE's model but the pinned one, `current`, and what a unit or process names."""
    *_, answers = _ask(inventory_file, recipe_name, overrides, {"do": "prune", "dry": dry})
    for host, answer in answers.items():
        for name, taken in answer["removed"].items():
            click.echo(f"{host}: {'would remove' if dry else 'removed'} {name}, {size(taken)}")
        for name, why in answer["kept"].items():
            click.echo(f"{host}: kept {name} ({why})")


def status_lines(listing: Listing, answers: Answers, plan: Plan | None = None) -> list[str]:
    """Return one line per host, one for each file that is wrong there, and what load is to be expected."""
    lines = []
    for host, answer in answers.items():
        state = "complete" if answer["complete"] else f"{answer['good']} of {len(listing.files)} files verified"
        lines.append(f"{host}: {state}, {size(answer['free'])} free, current is {answer['link'][:12] or 'not set'}")
        if not answer["complete"]:
            lines += [f"  {path}: {why}" for path, why in answer["wrong"].items()]
    expected = loaders.cold_load_line(
        plan.loaders if plan else None,
        plan.load if plan else None,
        {host: answer.get("rate") for host, answer in answers.items()},
        {host: answer.get("loaders") for host, answer in answers.items()},
    )
    return [*lines, expected] if expected else lines


def _ask(
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    request: Mapping[str, Any],
    *,
    files: bool = False,
) -> tuple[Fleet, Listing, Answers]:
    """Send every host a request about the pinned revision, with the pin's digest, and with its files where asked."""
    fleet = inventory.from_path(inventory_file, overrides, recipe_name)
    chosen = recipe.load(inventory.recipe_of(recipe_name, fleet)).of_variant(fleet.settings.variant)
    listing = pins.read(chosen.pin, homes=fleet.homes)
    if listing is None:
        raise Refusal(f"there is no {pins.path_of(chosen.pin)}", fix=f"{chosen.pin_command}")
    directory = revision_path(fleet.settings.weights.root, listing.model, listing.revision)
    full = {**request, "directory": directory, "manifest": listing.digest}
    if files:
        full["files"] = listing.as_data()["files"]
    return fleet, listing, ask_hosts.every_host(inventory_file, recipe_name, overrides, "weights_on_disk", full)
