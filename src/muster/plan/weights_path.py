"""Paths of revisions and bundles on a host, and the settings of a group that is served from there."""

from __future__ import annotations

import re

from muster.errors import Refusal
from muster.on_host import places
from muster.spec import bundles
from muster.spec.recipe import Recipe
from muster.spec.settings import Settings

_MODEL = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


def revision_path(root: str, model: str, revision: str) -> str:
    """Return the directory of one revision: `<root>/<organisation>--<model>/<revision>`.

    Raises:
        Refusal: a model name that could lead out of the root.
    """
    if not _MODEL.fullmatch(model) or ".." in model:
        raise Refusal(f"model '{model}'", needed="a name such as organisation/model", fix="correct recipe or settings")
    return f"{root}/{bundles.model_directory(model)}/{revision}"


def is_copy_of(path: str, model: str) -> bool:
    """Whether a directory is named as one that holds a model: muster's own `root`, or the hub's cache."""
    directory = bundles.model_directory(model)
    return not {directory, f"models--{directory}"}.isdisjoint(path.split("/"))


def bundle_path(settings: Settings) -> str | None:
    """Return the bundle's directory on the hosts, named by its content; None without a bundle.

    Raises:
        Refusal: as `bundles.read`.
    """
    directory = bundles.directory_of(settings)
    if directory is None:
        return None
    listing = bundles.read(directory)
    return revision_path(f"{settings.root}/{places.BUNDLES}", listing.model, listing.revision)


def served_path(settings: Settings, recipe: Recipe) -> str | None:
    """Return the directory that is served, or None where muster stages no weights.

    Raises:
        Refusal: weights are to be staged and no commit is pinned.
    """
    model = settings.model or recipe.model
    if settings.weights.kind == "none" or model.startswith("/"):
        return None
    revision = settings.revision or recipe.revision
    if revision is None:
        raise Refusal(
            f"{model} is pinned to no commit, and weights_source is {settings.weights.source}",
            needed="a commit of 40 hexadecimal digits: what is staged is a directory named by it",
            fix=f"{recipe.pin_command}",
        )
    return revision_path(settings.weights.root, model, revision)


def applied(settings: Settings, recipe: Recipe) -> Settings:
    """Return the settings as they are once the weights are staged: the model is a directory, and nothing is fetched.

    The directory carries the revision: another one is another plan, whose digest restarts the group as a whole.
    """
    path = served_path(settings, recipe)
    if path is None:
        return settings
    return settings.model_copy(update={"model": path, "offline": True, "revision": None})
