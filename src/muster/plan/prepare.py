"""Reads what a plan is made from: the recipe, its pin, the bundle. `make` builds the plan itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from muster.errors import Refusal
from muster.plan import cuda_variants
from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.plan.weights_path import applied, bundle_path
from muster.plan.weights_source import source_of
from muster.spec import bundles, pins
from muster.spec import recipe as recipes
from muster.spec.inventory import Fleet
from muster.spec.recipe import Recipe
from muster.spec.settings import Settings

Answers = TypeVar("Answers")


def plan_for(recipe_name: str, fleet: Fleet, cuda_variant: str | None = None) -> Plan:
    """Return the plan of a recipe on an inventory.

    Args:
        recipe_name: bundled recipe or a file of one's own.
        fleet: hosts and settings.
        cuda_variant: what the hosts' drivers call for; None leaves it to the settings.

    Raises:
        Refusal: as `recipe.load`, `pins.read`, `bundles.read` and `build_plan`.
    """
    return plan_of(recipes.load(recipe_name), fleet, cuda_variant)


def plans_for(recipe_name: str, fleet: Fleet) -> Iterator[Plan]:
    """Yield the plan of a recipe, and where no driver was asked those of other CUDA variants; none where none can be
    made: looking at disks needs none.

    Args:
        recipe_name, fleet: as for `plan_for`.
    """
    try:
        plan = plan_for(recipe_name, fleet)
        yield plan
        others = cuda_variants.offered(plan.vllm_version) if plan.cuda_variant_assumed else ()
        names = [variant.name for variant in others if variant.name != plan.cuda_variant]
        yield from (plan_for(recipe_name, fleet, name) for name in names)
    except Refusal:
        return


def plan_of(recipe: Recipe, fleet: Fleet, cuda_variant: str | None = None) -> Plan:
    """Return the plan of a recipe that is at hand; otherwise as `plan_for`."""
    given = (
        fleet.settings if cuda_variant is None else fleet.settings.model_copy(update={"torch_backend": cuda_variant})
    )
    recipe, bundle = recipe.of_variant(given.variant), bundles.directory_of(given)
    listing = pins.read(recipe.pin, bundle, fleet.homes)
    pinned = pins.pinned(recipe, listing)
    drafts = pins.drafts(recipe.name, fleet.homes, bundle)
    plan = build_plan(pinned, fleet.hosts, applied(from_bundle(given), pinned), drafts=drafts)
    bundled = bundles.weights_of(given) is not None
    source = source_of(recipe, given, listing, plan.weight_bytes, bundled=bundled)
    if source.kind == "staged":
        source = replace(source, bytes=source.bytes + sum(draft.size for draft in drafts))
    load = plan.load
    if load is not None and listing is not None and source.exact and listing.weight_bytes:
        load = replace(load, bytes=int(listing.weight_bytes * load.share))
    return replace(plan, weights=source, load=load)


def plan_for_drivers(
    plan: Plan,
    replan: Callable[[str], Plan],
    probe: Callable[[Plan], Answers],
    drivers: Callable[[Answers], Mapping[str, str | None]],
) -> tuple[Plan, Answers]:
    """Return the plan that the hosts' drivers run, and what the hosts answered about that plan.

    The one place where a plan is made again after a probe: another CUDA variant is another release, hence another plan.

    Args:
        plan: with the CUDA variant that was assumed while no driver had been asked.
        replan: returns the same plan with another CUDA variant.
        probe: asks the hosts about a plan; called twice where that changes.
        drivers: host -> driver version, out of the answers.
    """
    answers = probe(plan)
    assumed = plan.cuda_variant if plan.cuda_variant_assumed else None
    variant = cuda_variants.other_variant(drivers(answers), vllm=plan.vllm_version, assumed=assumed)
    if variant is None:
        return plan, answers
    plan = replan(variant)
    return plan, probe(plan)


def from_bundle(settings: Settings) -> Settings:
    """Return the settings of a group out of its bundle: wheels and no index, and the weights that it brings."""
    where = bundle_path(settings)
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
            "weights": bundles.weights(settings),
        }
    )
