"""Pin files: `pins/<recipe>.json` says which commit of a model is served and what every file of it must be."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from muster import resources
from muster.errors import Refusal
from muster.spec import listing as listings
from muster.spec.listing import Listing
from muster.spec.recipe import Recipe


def path_of(recipe: str) -> Path:
    """Return where the pin of a recipe is written: in the working directory, as inventories are."""
    return Path("pins", f"{recipe}.json")


def read(recipe: str, bundle: Path | None = None) -> Listing | None:
    """Return the pin of a recipe: the bundle's, the working directory's, or the one that muster brings.

    Raises:
        Refusal: the file is no pin.
    """
    place = found(recipe, bundle)
    if place is None:
        return None
    try:
        return listings.parse(json.loads(place.read_text(encoding="utf-8")), where=str(place))
    except ValueError as error:
        raise Refusal(f"{place}: not JSON: {error}", fix="pin again") from None


def found(recipe: str, bundle: Path | None = None) -> Path | None:
    """Return the file that pins a recipe, or None."""
    places = [] if bundle is None else [bundle / "pin.json"]
    places.append(path_of(recipe))
    with contextlib.suppress(FileNotFoundError):  # none need be shipped
        places.append(resources.directory("pins") / f"{recipe}.json")
    return next((place for place in places if place.is_file()), None)


def write(recipe: str, listing: Listing) -> Path:
    """Write the pin of a recipe, one file a line so that a change can be read in a diff; return its path."""
    data = listing.as_data()
    files = ",\n".join("  " + json.dumps(entry) for entry in data.pop("files"))
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in data.items())
    place = path_of(recipe)
    place.parent.mkdir(exist_ok=True)
    place.write_text(f'{{\n{head} "files": [\n{files}\n ]\n}}\n', encoding="utf-8")
    return place


def pinned(recipe: Recipe, listing: Listing | None) -> Recipe:
    """Return the recipe with the commit of its pin; a pin of another model changes nothing."""
    if listing is None or listing.model != recipe.model:
        return recipe
    return recipe.model_copy(update={"revision": listing.revision})
