"""The flags a group asks for: the recipe's, the strategy's and the features', and over them the user's settings."""

from __future__ import annotations

import json

from muster.errors import unknown
from muster.plan import own_files, reserved_flags
from muster.plan.flags_in_argv import values_of
from muster.plan.group import stack_directory
from muster.spec import plain_secrets
from muster.spec.recipe import Recipe
from muster.spec.settings import Settings
from muster.spec.strategy import FlagValue, Strategy

SIZES = ("max_model_len", "max_num_batched_tokens", "max_num_seqs", "gpu_memory_utilization")


def merged(recipe: Recipe, strategy: Strategy, settings: Settings) -> dict[str, FlagValue]:
    """Return the flags asked for, before a version of vLLM has its say.

    Args:
        recipe, strategy: the seed's flags and features.
        settings: the user's; they win.

    Raises:
        Refusal: a feature or file the recipe lacks, a flag that the plan decides, a secret in the recipe's flags.
    """
    flags: dict[str, FlagValue] = {**recipe.flags, **strategy.flags}
    for feature in features_on(recipe, strategy, settings):
        flags |= recipe.features[feature].flags
    reserved_flags.flags(flags, where=f"recipe {recipe.name}")
    for name in SIZES:
        if getattr(settings, name) is not None:
            flags[name.replace("_", "-")] = getattr(settings, name)
    if not settings.trust_remote_code:
        flags["trust-remote-code"] = False
    flags |= _revisions(recipe, settings)
    if settings.drain_seconds:
        flags["shutdown-timeout"] = settings.drain_seconds
    if settings.supervisor == "guard":
        folder = stack_directory(settings.group or recipe.name)
        flags["watchdog-config"] = _watchdog_config(settings.stall_timeout, folder)
    if settings.deep_ep:
        flags["all2all-backend"] = "deepep_high_throughput"
    for name in settings.drop_args:
        if flags.pop(name.removeprefix("--"), None) is None:
            raise unknown("recipe flag", name.removeprefix("--"), flags, where="drop_args")
    reserved_flags.check(settings.extra_args, where="extra_args")
    plain_secrets.check_flags(flags, where=f"recipe {recipe.name}", waived=settings.not_secret)
    for name in values_of(settings.extra_args):
        flags.pop(name.partition(".")[0], None)  # --watchdog-config.timeout is one field of it
    return own_files.as_paths(flags, recipe, settings.group or recipe.name)


def features_on(recipe: Recipe, strategy: Strategy, settings: Settings) -> list[str]:
    """Return the features that are on, in the recipe's order: the strategy's, and what the settings turn on and off.

    Raises:
        Refusal: a feature the recipe lacks.
    """
    asked = {
        **settings.features,
        **({} if settings.tool_calling is None else {"tool_calling": settings.tool_calling}),
        **({} if settings.reasoning is None else {"reasoning": settings.reasoning}),
    }
    for feature in [*settings.features, *(name for name, on in asked.items() if on)]:
        if feature not in recipe.features:
            raise unknown("feature", feature, recipe.features, where=f"recipe {recipe.name}")
    return [feature for feature in recipe.features if asked.get(feature, feature in strategy.features)]


def _revisions(recipe: Recipe, settings: Settings) -> dict[str, FlagValue]:
    revision = settings.revision or (recipe.revision if settings.model is None else None)
    if not revision:
        return {}
    pinned: dict[str, FlagValue] = {"revision": revision, "tokenizer-revision": revision}
    return pinned | ({"code-revision": revision} if settings.trust_remote_code else {})


def _watchdog_config(stall_timeout: int, directory: str) -> str:
    """Return --watchdog-config: the engine dumps the stacks of a process that stands still before the guard ends it.

    Its clock starts with the last step, as the guard's does, and is read every `check_interval`.

    Args:
        stall_timeout: seconds after which the guard ends an engine without progress.
        directory: where the dumps go.
    """
    seconds = {"timeout": max(1, stall_timeout // 2), "check_interval": max(1, stall_timeout // 12)}
    return json.dumps({**seconds, "dump_dir": directory}, separators=(",", ":"))
