"""Which strategy a group is served with: the one that the settings name, or the recipe's for its GPUs and hosts."""

from __future__ import annotations

from collections.abc import Mapping

from muster.errors import Refusal, unknown
from muster.plan.layout import lay_out
from muster.plan.topology import Topology
from muster.spec.recipe import Recipe
from muster.spec.strategy import Strategy


def choose(recipe: Recipe, requested: str | None, topology: Topology) -> tuple[str, list[str]]:
    """Return a strategy's name, and notes about the choice.

    Args:
        recipe: whose strategies.
        requested: by the settings; None takes the recipe's default for the GPUs, or another one where the default does
            not take these hosts.
        topology: the hosts.

    Raises:
        Refusal: an unknown name, or no strategy for these hosts.
    """
    refused = {name: _refused(name, strategy, topology) for name, strategy in recipe.strategies.items()}
    fitting = [name for name, refusal in refused.items() if refusal is None]
    count = topology.hosts
    if requested is not None:
        if requested not in recipe.strategies:
            raise unknown("strategy", requested, recipe.strategies, where=f"recipe {recipe.name}")
        refusal = refused[requested]
        if refusal is not None:
            fix = f"take {' or '.join(fitting)}" if fitting else "take another inventory"
            raise Refusal(refusal.found, needed=refusal.needed, fix=fix)
        return requested, []
    default = recipe.defaults.get(topology.gpu.profile) or recipe.defaults["any"]
    if default in fitting:
        return default, []
    if not fitting:
        raise Refusal(
            f"no strategy of recipe {recipe.name} takes {_hosts(count)}",
            needed="; ".join(f"{need} ({', '.join(names)})" for need, names in _by_need(refused).items()),
            fix="take an inventory of that many hosts",
        )
    default_needs = refused[default]
    note = f"strategy {fitting[0]}: {default}, the recipe's default for {topology.gpu.profile}, needs"
    return fitting[0], [f"{note} {default_needs.needed if default_needs else ''}"]


def _refused(name: str, strategy: Strategy, topology: Topology) -> Refusal | None:
    """Return why a strategy cannot be spread over these hosts; None where it can."""
    count, product = topology.hosts, topology.gpu.profile
    if strategy.gpus and product not in strategy.gpus:
        return Refusal(f"strategy {name} does not take {product}", needed=" or ".join(strategy.gpus))
    if count < strategy.min_hosts or strategy.hosts not in (None, count):
        return Refusal(f"strategy {name} does not take {_hosts(count)}", needed=_needs(strategy))
    try:
        lay_out(name, strategy, topology)
    except Refusal as refusal:
        return refusal
    return None


def _needs(strategy: Strategy) -> str:
    if strategy.hosts is not None:
        why = ": tensor parallel stays inside NVLink" if strategy.hosts == 1 else ""
        return f"exactly {_hosts(strategy.hosts)}{why}"
    why = ": it pipelines across hosts" if strategy.sizes.pp == "hosts" else ""
    return f"at least {_hosts(strategy.min_hosts)}{why}"


def _by_need(refused: Mapping[str, Refusal | None]) -> dict[str, list[str]]:
    by_need: dict[str, list[str]] = {}
    for name, refusal in refused.items():
        if refusal is not None:
            by_need.setdefault(refusal.needed, []).append(name)
    return by_need


def _hosts(count: int) -> str:
    return f"{count} host{'' if count == 1 else 's'}"
