"""Reads what a plan is made from: the recipe, its pin, the bundle. `make` builds the plan itself."""

from __future__ import annotations

from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.plan.weights_path import applied
from muster.spec import bundles, pins
from muster.spec import recipe as recipes
from muster.spec.inventory import Fleet
from muster.spec.recipe import Recipe
from muster.spec.settings import Settings


def plan_for(recipe_name: str, fleet: Fleet, build: str | None = None) -> Plan:
    """Return the plan of a recipe on an inventory.

    Args:
        recipe_name: bundled recipe or a file of one's own.
        fleet: hosts and settings.
        build: of the engine, as the hosts' drivers decided it; as the settings say when None.

    Raises:
        Refusal: as `recipe.load`, `pins.read`, `bundles.read` and `build_plan`.
    """
    given = fleet.settings if build is None else fleet.settings.model_copy(update={"torch_backend": build})
    recipe, settings = prepared(recipes.load(recipe_name), given)
    return build_plan(recipe, fleet.hosts, settings)


def prepared(recipe: Recipe, settings: Settings) -> tuple[Recipe, Settings]:
    """Return recipe and settings as they are with the pinned commit, the bundle and the staged weights.

    Args:
        recipe: as its file has it.
        settings: as the user gave them.
    """
    pinned = pins.pinned(recipe, pins.read(recipe.name, bundles.given(settings)))
    return pinned, applied(from_bundle(settings), pinned)


def from_bundle(settings: Settings) -> Settings:
    """Return the settings with which an engine is installed out of the bundle: its wheels and no index."""
    where = bundles.place(settings)
    if where is None:
        return settings
    return settings.model_copy(
        update={
            "index_url": None,
            "extra_index_urls": [],
            "find_links": [f"{where}/wheels"],
            "torch_backend": None,
            "proxy": None,
            "offline": True,
        }
    )
