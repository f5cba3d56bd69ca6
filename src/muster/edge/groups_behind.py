"""The groups of an inventory that an edge is before: their plans, and the edge's own settings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from muster.edge.edge_plan import EdgePlan, edge_group, edge_plan
from muster.plan.fleet import plans_of
from muster.plan.types import Plan
from muster.spec.inventory import Fleet
from muster.spec.settings import Settings
from muster.spec.shared_settings import require_shared


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


def seen_by_edge(plans: Mapping[str, Plan], settings: Mapping[str, Settings]) -> EdgePlan:
    """Return the plan of an edge before those of some groups that it can be before, whatever else it would refuse.

    Args:
        plans, settings: group -> its plan and settings.
    """
    groups = tuple(edge_group(plan, settings[group]) for group, plan in plans.items() if plan.heals)
    return EdgePlan(groups, next(iter(settings.values())).edge)


def groups_behind(fleets: Mapping[str, Fleet], recipe: str | None) -> Behind:
    """Return the groups of an inventory that an edge is before, and its plan.

    Args:
        fleets: group of the inventory -> its hosts and settings.
        recipe: of the one group; None where each names its own.

    Raises:
        Refusal: as `plans_of` and `edge_plan`; groups with different settings of the edge.
    """
    plans = plans_of(fleets, recipe)
    settings = {group: fleet.settings for group, fleet in fleets.items()}
    require_shared(settings, "edge", needed="one edge before all groups")
    groups = [edge_group(plans[group], settings[group]) for group in plans]
    return Behind(edge_plan(groups, next(iter(settings.values())).edge), plans, settings)
