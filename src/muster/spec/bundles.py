"""A bundle: everything that hosts without a network need, gathered on a machine that has one.

DIR/bundle.json         the files under engine/, with SHA-256: the hosts verify them as they verify weights
DIR/engine/wheels/      every wheel of the release, as one resolution chose them
DIR/engine/pylock.toml  that resolution, with hashes
DIR/engine/python/      optional: the Python that uv would download
DIR/pin.json            the model's commit and files
DIR/weights/            optional: those files
DIR/drafts/ORG--MODEL.json  commit and files of each draft model that is pinned for the recipe
DIR/drafts/ORG--MODEL/      optional, with the weights: those files
"""

from __future__ import annotations

import json
from pathlib import Path

from muster.errors import Refusal
from muster.spec import listing as listings
from muster.spec.listing import Listing
from muster.spec.settings import Settings, Weights

NOTE, ENGINE, PIN, WEIGHTS, DRAFTS = "bundle.json", "engine", "pin.json", "weights", "drafts"


def read(directory: Path) -> Listing:
    """Return the files of a bundle's engine.

    Raises:
        Refusal: it is not a bundle.
    """
    place = directory / NOTE
    if not place.is_file():
        raise Refusal(f"{directory} is not a bundle: it has no {NOTE}", fix=f"muster bundle RECIPE --out {directory}")
    try:
        return listings.parse(json.loads(place.read_text(encoding="utf-8")), where=str(place))
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{place}: not JSON: {error}", fix="make the bundle again") from None


def model_directory(model: str) -> str:
    """Return the name of a directory that holds a model, here and on hosts: `ORG--MODEL`."""
    return model.replace("/", "--")


def draft(directory: Path, model: str) -> Path:
    """Return where a bundle has the weights of a draft model."""
    return directory / DRAFTS / model_directory(model)


def draft_pin(directory: Path, model: str) -> Path:
    """Return where a bundle has the pin of a draft model."""
    return Path(f"{draft(directory, model)}.json")


def resolution(directory: Path) -> str:
    """Return the text of a bundle's resolution.

    Raises:
        Refusal: there is none.
    """
    place = directory / ENGINE / "pylock.toml"
    if not place.is_file():
        raise Refusal(f"{directory} has no {ENGINE}/pylock.toml", fix="make the bundle again")
    return place.read_text(encoding="utf-8")


def directory_of(settings: Settings) -> Path | None:
    """Return the directory of the bundle that the settings name."""
    return Path(settings.bundle) if settings.bundle else None


def weights_of(settings: Settings) -> Path | None:
    """Return the directory of the model's weights in the settings' bundle; None where it brings none."""
    bundle = directory_of(settings)
    return bundle / WEIGHTS if bundle is not None and (bundle / WEIGHTS).is_dir() else None


def weights(settings: Settings) -> Weights:
    """Return where the weights come from: the settings' bundle where it brings them, else as the settings say."""
    held = weights_of(settings)
    if held is None:
        return settings.weights
    return settings.weights.model_copy(update={"source": f"control:{held.resolve()}"})
