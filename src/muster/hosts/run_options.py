"""How a deploy is run, as the user asked for it."""

from __future__ import annotations

from dataclasses import dataclass


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
