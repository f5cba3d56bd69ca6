"""What a plan is made from is read here: the recipe, its pin, the bundle. The plan itself is made by `build.py`."""

from __future__ import annotations

from muster import recipe as recipes
from muster.build import build_plan
from muster.inventory import Fleet
from muster.plan import Plan
from muster.recipe import Recipe
from muster.settings import Settings
from muster.weights import applied, bundles, pins


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
    return pinned, applied(bundles.applied(settings), pinned)
