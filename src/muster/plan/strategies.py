"""Which strategy a group is served with: the one that the settings name, or the recipe's for its GPUs and hosts."""

from __future__ import annotations

from collections.abc import Mapping

from muster.errors import Refusal, unknown
from muster.plan.topology import Topology
from muster.spec.recipe import Recipe, Strategy


def choose(recipe: Recipe, requested: str | None, topology: Topology) -> tuple[str, list[str]]:
    """Return a strategy's name, and notes about the choice.

    Args:
        recipe: whose strategies.
        requested: by the settings; None takes the recipe's default for the GPUs, or another one where the default does
            not take this many hosts.
        topology: the hosts.

    Raises:
        Refusal: an unknown name, or no strategy for this many hosts.
    """
    count = topology.hosts
    fitting = [name for name, strategy in recipe.strategies.items() if takes(strategy, count)]
    if requested is not None:
        if requested not in recipe.strategies:
            raise unknown("strategy", requested, recipe.strategies, where=f"recipe {recipe.name}")
        if requested not in fitting:
            raise Refusal(
                f"strategy {requested} does not take {_hosts(count)}",
                needed=_needs(recipe.strategies[requested]),
                fix=f"take {' or '.join(fitting)}" if fitting else "take another inventory",
            )
        return requested, []
    default = recipe.defaults.get(topology.gpu.profile) or recipe.defaults["any"]
    if default in fitting:
        return default, []
    if not fitting:
        raise Refusal(
            f"no strategy of recipe {recipe.name} takes {_hosts(count)}",
            needed=_all_needs(recipe.strategies),
            fix="take an inventory of that many hosts",
        )
    note = f"strategy {fitting[0]}: {default}, the recipe's default for {topology.gpu.profile}, takes"
    return fitting[0], [f"{note} {_needs(recipe.strategies[default])}"]


def takes(strategy: Strategy, count: int) -> bool:
    """Whether a strategy can be spread over so many hosts."""
    return count >= strategy.min_hosts and strategy.hosts in (None, count)


def _needs(strategy: Strategy) -> str:
    if strategy.hosts is not None:
        return f"exactly {_hosts(strategy.hosts)}: tensor parallel stays inside NVLink"
    return f"at least {_hosts(strategy.min_hosts)}: it pipelines across hosts"


def _all_needs(strategies: Mapping[str, Strategy]) -> str:
    by_need: dict[str, list[str]] = {}
    for name, strategy in strategies.items():
        by_need.setdefault(_needs(strategy), []).append(name)
    return "; ".join(f"{need} ({', '.join(names)})" for need, names in by_need.items())


def _hosts(count: int) -> str:
    return f"{count} host{'' if count == 1 else 's'}"
