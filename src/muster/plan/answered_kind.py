"""What a group's model answers: the recipe's word for it, held against the flags that the engine gets."""

from __future__ import annotations

from collections.abc import Mapping

from muster.errors import Refusal
from muster.guard.endpoint_kinds import COMPLETIONS, KINDS
from muster.plan.layout import Layout
from muster.spec.recipe import Recipe
from muster.spec.strategy import FlagValue


def check(recipe: Recipe, asked: Mapping[str, FlagValue]) -> None:
    """Refuse an engine that answers nothing of the recipe's kind: its guard would wait for ever.

    Args:
        recipe: whose kind.
        asked: every flag that the engine gets.

    Raises:
        Refusal: `--runner pooling` for completions, `--runner generate` for anything else.
    """
    runner, completes = asked.get("runner", "auto"), recipe.endpoint == COMPLETIONS
    if runner == ("pooling" if completes else "generate"):
        others = ", ".join(kind for kind in KINDS if kind != COMPLETIONS)
        raise Refusal(
            f"--runner {runner}, and recipe {recipe.name} says that the model answers {recipe.endpoint}",
            needed="an engine that answers what the guard and verify ask",
            fix=f"give the recipe `endpoint:` one of {others}" if completes else "drop --runner generate",
        )


def notes(recipe: Recipe, layout: Layout) -> list[str]:
    """Return what a plan should say of requests that the engine sends to a DP rank of its own choice."""
    kind = KINDS[recipe.endpoint]
    if kind.by_rank or (layout.dp_local if layout.load_balancing == "hybrid" else layout.dp) == 1:
        return []
    return [
        f"the engine chooses which DP rank answers {kind.path}: no canary is sent to one by number, a hang shows later"
    ]
