"""Where a recipe's own files are on hosts, and which of them a command line names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from muster.errors import Refusal
from muster.on_host import places
from muster.plan.types import Plan
from muster.spec.own_files import SUFFIXES, OwnFile
from muster.spec.recipe import Recipe
from muster.spec.strategy import FlagValue

_FILE_FLAGS = ("chat-template", "tool-parser-plugin", "reasoning-parser-plugin")
"""Flags of vLLM that take a path. A template may also be given as text."""


def path(group: str, name: str, file: OwnFile) -> str:
    """Return a file's path on the hosts: another text is another path, and with it another command line."""
    return f"{places.config(group)}/files/{file.digest[:12]}/{name}"


def _texts(recipe: Recipe, group: str) -> dict[str, str]:
    return {path(group, name, file): file.text or "" for name, file in recipe.files.items()}


def as_paths(flags: Mapping[str, FlagValue], recipe: Recipe, group: str) -> dict[str, FlagValue]:
    """Return flags with the path on the hosts where a flag names one of the recipe's files.

    Args:
        flags: as asked for.
        recipe: whose files.
        group: name of the group.

    Raises:
        Refusal: a flag names a relative path that is no file of the recipe.
    """
    paths = {name: path(group, name, file) for name, file in recipe.files.items()}
    for name in _FILE_FLAGS:
        value = flags.get(name)
        if isinstance(value, str) and value.endswith(SUFFIXES) and not value.startswith("/") and value not in paths:
            raise Refusal(
                f"--{name} {value} is no file of recipe {recipe.name}",
                needed="a file that the recipe brings, or an absolute path that is on every host",
                fix=f"give the recipe `files: {{{value.rpartition('/')[2]}: {{}}}}` and put the file beside it",
            )
    return {name: paths.get(value, value) if isinstance(value, str) else value for name, value in flags.items()}


def named(words: Sequence[str], recipe: Recipe, group: str) -> dict[str, str]:
    """Return path -> text of the recipe's files that a command line names.

    Args:
        words: of `vllm serve`.
        recipe: whose files.
        group: name of the group.
    """
    return {place: text for place, text in _texts(recipe, group).items() if place in words}


def placed(plan: Plan, host: str) -> list[str]:
    """Return the paths of such files among a host's."""
    return [place for place in plan.hosts[host].files if place.startswith(f"{places.config(plan.group)}/files/")]


def notes(words: Sequence[str], recipe: Recipe, group: str, *, allowed: bool) -> list[str]:
    """Return what a plan should say of the recipe's own files.

    Args:
        words, recipe, group: as above.
        allowed: whether code that comes with a model may run (`trust_remote_code`).

    Raises:
        Refusal: a plugin, which is code, and none may run.
    """
    said = []
    for place in named(words, recipe, group):
        name = place.rpartition("/")[2]
        said.append(f"{name} comes with the recipe, SHA-256 {recipe.files[name].digest[:16]}")
        if name.endswith(".py"):
            if not allowed:
                raise Refusal(
                    f"{name} of recipe {recipe.name} is code that the engine would run",
                    needed="trust_remote_code",
                    fix="read it and set trust_remote_code, or turn off the feature that names it",
                )
            said[-1] += ": code that the engine runs"
    return said
