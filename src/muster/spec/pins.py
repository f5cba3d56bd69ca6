"""Pin files: `pins/<recipe>.json` holds the commit of a model to serve, and size and SHA-256 of its every file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from muster import resources
from muster.errors import Refusal, shown
from muster.on_host import whole_files
from muster.spec import bundles, model_config
from muster.spec import listing as listings
from muster.spec.listing import Listing
from muster.spec.recipe import Recipe
from muster.spec.safe_text import model_id


def path_of(recipe: str, draft: str | None = None) -> Path:
    """Return the path of a recipe's pin, or of a draft model's: under the working directory, as inventories are.

    Raises:
        Refusal: the draft is no model at the hub.
    """
    if draft is None:
        return Path("pins", f"{recipe}.json")
    try:
        if model_id(draft).startswith("/"):
            raise ValueError("organisation/name at the hub")
    except ValueError as error:
        raise Refusal(f"draft model {shown(draft)}", needed=str(error)) from None
    return Path("pins", f"{recipe}.{draft.replace('/', '--')}.json")


def read(recipe: str, bundle: Path | None = None, homes: Sequence[Path] = ()) -> Listing | None:
    """Return the pin of a recipe: the bundle's, the working directory's, the inventory's, or the one muster ships.

    Args:
        recipe: its name.
        bundle: directory of a bundle.
        homes: directories of the inventory, weakest first, whose pins/ count where the working directory has none.

    Raises:
        Refusal: the file is no pin.
    """
    place = path_in_use(recipe, bundle, homes)
    if place is None:
        return None
    return _listing(place)


def drafts(recipe: str, homes: Sequence[Path] = (), bundle: Path | None = None) -> tuple[Listing, ...]:
    """Return the pins of a recipe's draft models: the bundle's, then the working directory's, then the inventory's.

    Raises:
        Refusal: a file is no pin.
    """
    found: dict[str, Listing] = {}
    places = [] if bundle is None else sorted((bundle / bundles.DRAFTS).glob("*.json"))
    for home in (Path(), *reversed(homes)):
        places += sorted((home / "pins").glob(f"{recipe}.*.json"))
    for place in places:
        listing = _listing(place)
        found.setdefault(listing.model, listing)
    return tuple(found.values())


def _listing(place: Path) -> Listing:
    try:
        return listings.parse(json.loads(place.read_text(encoding="utf-8")), where=str(place))
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{place}: not JSON: {error}", fix="pin again") from None


def path_in_use(recipe: str, bundle: Path | None = None, homes: Sequence[Path] = ()) -> Path | None:
    """Return the file that pins a recipe, or None; arguments as of `read`."""
    places = [] if bundle is None else [bundle / "pin.json"]
    places += [path_of(recipe), *(home / path_of(recipe) for home in reversed(homes))]
    with contextlib.suppress(FileNotFoundError):  # muster need not ship any
        places.append(resources.directory("pins") / f"{recipe}.json")
    return next((place for place in places if place.is_file()), None)


def write(recipe: str, listing: Listing, *, draft: bool = False) -> Path:
    """Write the pin of a recipe, or of a draft of it, whole, one file per line for readable diffs; return its path.

    Raises:
        Refusal: a listing that `read` would refuse, or a directory that cannot be written; the old pin stays.
    """
    data = listings.parse(listing.as_data(), where=f"the pin of {recipe}").as_data()
    files = ",\n".join("  " + json.dumps(entry) for entry in data.pop("files"))
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in data.items())
    place = path_of(recipe, listing.model if draft else None)
    try:
        place.parent.mkdir(exist_ok=True)
        whole_files.write_whole(str(place), f'{{\n{head} "files": [\n{files}\n ]\n}}\n'.encode())
    except OSError as error:
        raise Refusal(
            f"{place} cannot be written: {error.strerror or error}", fix="run in a directory of yours"
        ) from None
    return place


def pinned(recipe: Recipe, listing: Listing | None) -> Recipe:
    """Return the recipe with the commit of its pin, and with a shape where it has none and the pin's is understood.

    A pin of another model changes nothing.
    """
    if listing is None or listing.model != recipe.model:
        return recipe
    found: dict[str, object] = {"revision": listing.revision}
    if recipe.shape is None and listing.config is not None:
        with contextlib.suppress(model_config.NotUnderstood):
            found["shape"] = model_config.shape_of(listing.config, weight_bytes=listing.weight_bytes)
    return recipe.model_copy(update=found)
