"""Variables that an engine gets besides the plan's own: recipe, strategy, features, and over them the user's."""

from __future__ import annotations

from muster.plan.merged_flags import features_on
from muster.spec import plain_secrets, reserved_variables
from muster.spec.recipe import Recipe
from muster.spec.settings import Settings
from muster.spec.strategy import Strategy


def merged(recipe: Recipe, strategy: Strategy, settings: Settings) -> dict[str, str]:
    """Return the environment asked for.

    Raises:
        Refusal: the recipe sets a variable that the plan decides, or carries a secret.
    """
    env = {**recipe.env, **strategy.env}
    for feature in features_on(recipe, strategy, settings):
        env |= recipe.features[feature].env
    reserved_variables.check(env, where=f"recipe {recipe.name}", before="take it out of the recipe's env, and ")
    plain_secrets.check_settings({"extra_env": env}, waived=settings.not_secret)
    return env | settings.extra_env
