"""How a deploy is run, as the user asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunOptions:
    """How a deploy is run.

    Args:
        dry: say what would change, and change nothing.
        diff: show how files differ.
        yes: stop what serves without asking.
        verbose: print every line of every host as it comes.
    """

    dry: bool = False
    diff: bool = False
    yes: bool = False
    verbose: bool = False


def as_typed(inventory_file: str, recipe: str | None, overrides: Mapping[str, Any]) -> str:
    """Return INVENTORY, RECIPE and `--group` as a user types them, for the next command."""
    group = ["--group", str(overrides["group"])] if "group" in overrides else []
    return " ".join([inventory_file, *([recipe] if recipe else []), *group])
