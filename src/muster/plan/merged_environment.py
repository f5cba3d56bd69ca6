"""Variables that an engine gets besides the plan's own: recipe, strategy, features, and over them the user's."""

from __future__ import annotations

from muster.errors import Refusal
from muster.plan.merged_flags import features_on
from muster.spec import plain_secrets, reserved_variables
from muster.spec.recipe import Recipe, Strategy
from muster.spec.settings import Settings


def merged(recipe: Recipe, strategy: Strategy, settings: Settings) -> dict[str, str]:
    """Return the environment asked for.

    Raises:
        Refusal: the recipe sets a variable that the plan decides, or carries a secret.
    """
    env = {**recipe.env, **strategy.env}
    for feature in features_on(recipe, strategy, settings):
        env |= recipe.features[feature].env
    for name in env:
        instead = reserved_variables.instead_of(name)
        if instead is not None:
            raise Refusal(
                f"recipe {recipe.name} sets {name}",
                needed="only variables that the plan does not decide by itself",
                fix=f"take it out of the recipe's env, and change {instead}",
            )
    plain_secrets.check_settings({"extra_env": env}, waived=settings.not_secret)
    return env | settings.extra_env
