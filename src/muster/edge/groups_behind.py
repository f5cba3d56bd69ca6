"""The groups of an inventory that an edge is before: their plans, and the edge's own settings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from muster.edge.edge_plan import EdgePlan, edge_group, edge_plan
from muster.errors import Refusal
from muster.plan.fleet import plan_fleet
from muster.plan.prepare import plan_for
from muster.plan.types import Plan
from muster.spec.inventory import Fleet
from muster.spec.settings import Edge, Settings


@dataclass(frozen=True)
class Behind:
    """Groups behind an edge.

    Args:
        plan: of the edge.
        plans, settings: group -> its plan and settings.
    """

    plan: EdgePlan
    plans: Mapping[str, Plan]
    settings: Mapping[str, Settings]


def groups_behind(fleets: Mapping[str, Fleet], recipe: str | None) -> Behind:
    """Return the groups of an inventory that an edge is before, and its plan.

    Args:
        fleets: group of the inventory -> its hosts and settings.
        recipe: of the one group; None where each names its own.

    Raises:
        Refusal: as `plan_for`, `plan_fleet` and `edge_plan`; groups with different settings of the edge.
    """
    if recipe is None:
        plans = dict(plan_fleet(fleets).plans)
    else:
        plans = {group: plan_for(recipe, fleet) for group, fleet in fleets.items()}
    settings = {group: fleet.settings for group, fleet in fleets.items()}
    groups = [edge_group(plans[group], settings[group]) for group in plans]
    return Behind(edge_plan(groups, _one_edge(fleets)), plans, settings)


def _one_edge(fleets: Mapping[str, Fleet]) -> Edge:
    (first, fleet), *others = fleets.items()
    for other, its in others:
        if its.settings.edge != fleet.settings.edge:
            mine, theirs = fleet.settings.edge.model_dump(by_alias=True), its.settings.edge.model_dump(by_alias=True)
            key = next(key for key in mine if mine[key] != theirs[key])
            raise Refusal(
                f"{key} is {mine[key]} for {first} and {theirs[key]} for {other}",
                needed="one edge before all groups",
                fix=f"set {key} in group_data/all.py",
            )
    return fleet.settings.edge
