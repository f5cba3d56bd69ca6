"""`muster bundle`: gather on a connected machine what hosts without a network need."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from muster.commands import options
from muster.errors import Refusal
from muster.on_host import whole_files
from muster.on_host.in_words import size
from muster.plan.make import build_plan
from muster.spec import bundles, inventory, pins, recipe
from muster.spec.listing import Listing
from muster.weights import gather


@click.command(
    epilog="""\b
Examples:
  muster bundle inventories/h800-16.py kimi-k2-instruct --out /srv/bundle --data torch_backend=cu130 --with-python
  muster bundle inventories/h20-8.py kimi-k2-thinking --out /srv/bundle --weights /srv/models/kimi-k2-thinking
  pyinfra inventories/h800-16.py deploys/kimi_k2_instruct.py --data bundle=/srv/bundle
"""
)
@options.over_inventory()
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Directory of the bundle.")
@click.option("--platform", default=gather.PLATFORM, show_default=True, help="The hosts', as uv names it.")
@click.option("--with-python", is_flag=True, help="Also the Python that uv would download.")
@click.option("--weights", type=click.Path(exists=True, file_okay=False), help="Also the weights, from a directory.")
def bundle(
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    out: str,
    platform: str,
    with_python: bool,
    weights: str | None,
) -> None:
    """Gather the engine of RECIPE on INVENTORY's hosts, and its pin; a second run fetches only what is missing."""
    fleet = inventory.from_path(inventory_file, overrides, recipe_name)
    chosen = recipe.load(inventory.recipe_of(recipe_name, fleet)).of_variant(fleet.settings.variant)
    drafts = pins.drafts(chosen.name, fleet.homes)
    plan = build_plan(chosen, fleet.hosts, fleet.settings, drafts=drafts)
    if plan.cuda_variant_assumed:
        raise Refusal(
            "torch_backend is 'auto', which asks the hosts' drivers",
            needed="the build that the hosts run, which this machine cannot know",
            fix="--data torch_backend=cu130 (or cu129, cpu); `muster preflight INVENTORY RECIPE` names it",
        )
    release = plan.release
    if not release.managed:
        raise Refusal(
            "engine_path is set: the hosts' own engine is used", fix="leave engine_path out, or bundle nothing"
        )
    place = Path(out)
    engine = place / bundles.ENGINE
    locked = gather.lock(release, engine, platform=platform)
    names = gather.wheels(locked, engine / "wheels")
    for stale in set((engine / "wheels").iterdir()) - set(names):
        stale.unlink()
    if with_python:
        gather.python(release.python, engine / "python")
    listing = gather.seal(place, chosen.pin)
    click.echo(f"{release.id}: {len(names)} wheels, {size(listing.size)}, sealed as {listing.revision[:12]}")
    pin = pins.read(chosen.pin, homes=fleet.homes)
    origin = pins.path_in_use(chosen.pin, homes=fleet.homes)
    if origin is None:
        click.echo(f"no pin: `{chosen.pin_command}` before the weights can be staged", err=True)
    else:
        shutil.copyfile(origin, place / bundles.PIN)
    _keep_pins(place, drafts)
    if weights:
        if pin is None:
            raise Refusal("weights without a pin cannot be verified", fix=f"{chosen.pin_command} --from {weights}")
        _copy(pin, Path(weights), place / bundles.WEIGHTS)
        for draft in drafts:
            beside = Path(weights).absolute().parent / bundles.model_directory(draft.model)
            _copy(draft, beside, bundles.draft(place, draft.model))


def _keep_pins(place: Path, drafts: Sequence[Listing]) -> None:
    """Write the pins of draft models into the bundle, and take away those of an earlier run."""
    kept = {bundles.draft_pin(place, draft.model): draft for draft in drafts}
    for stale in {*(place / bundles.DRAFTS).glob("*.json")} - set(kept):
        stale.unlink()
    for target, draft in kept.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        whole_files.write_whole(str(target), json.dumps(draft.as_data(), indent=1).encode())


def _copy(pin: Listing, source: Path, target: Path) -> None:
    """Copy the files of a pin that are not there yet, and say how many they are.

    Raises:
        Refusal: the directory lacks one.
    """
    for entry in pin.files:
        place = target / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if not (source / entry.path).is_file():
            raise Refusal(
                f"{source} has no {entry.path}",
                needed=f"the files of {pin.model} at {pin.revision[:12]}",
                fix="fetch them there: a draft model has its directory beside the model's, ORG--MODEL",
            )
        if not place.is_file() or place.stat().st_size != entry.size:
            shutil.copyfile(source / entry.path, place)
    click.echo(f"weights of {pin.model}: {len(pin.files)} files, {size(pin.size)}")
