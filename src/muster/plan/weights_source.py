"""Where a group's weights come from, how many bytes that is, and how fast the way must be. Pure."""

from __future__ import annotations

from muster.plan import flags_in_argv
from muster.plan.types import WeightsSource
from muster.spec.listing import Listing
from muster.spec.recipe import Recipe
from muster.spec.settings import Settings


def source_of(
    recipe: Recipe, settings: Settings, listing: Listing | None, estimate: int, *, bundled: bool = False
) -> WeightsSource:
    """Return where the weights come from.

    Args:
        recipe: of the group.
        settings: as the user gave them, before staged weights take the model's place.
        listing: the recipe's pin, where there is one.
        estimate: bytes on disk, worked out from the model's shape; 0 when unknown.
        bundled: whether a bundle brings them.
    """
    model = settings.model or recipe.model
    if flags_in_argv.values_of(settings.extra_args).get("load-format") == "dummy":
        return WeightsSource("dummy", model)
    if listing is not None and listing.model == model:
        size, exact = listing.size, True
    else:
        size, exact = estimate, False
    if model.startswith("/"):
        return WeightsSource("directory", model, size, exact)
    if bundled or settings.weights.kind != "none":
        origin = f"control:{settings.bundle}" if bundled else settings.weights.source
        return WeightsSource("staged", model, size, exact, origin=origin)
    if settings.offline:
        return WeightsSource("cache", model, size, exact, cache=settings.hf_home)
    return WeightsSource("download", model, size, exact, ready_timeout=settings.ready_timeout)
