"""How many requests the edge sends to engines at once, and how many more may wait there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from muster.edge.edge_plan import EdgeGroup, EdgePlan


def per_endpoint(plan: EdgePlan, group: EdgeGroup) -> int:
    """Return how many requests run at once behind each endpoint: `edge_max_requests`, or what the plan says."""
    return plan.settings.max_requests or group.at_once


def of_group(plan: EdgePlan, group: EdgeGroup) -> int:
    """Return how many requests a group runs at once."""
    return per_endpoint(plan, group) * len(group.endpoints)


def of_model(plan: EdgePlan, model: str) -> int:
    """Return how many requests all groups of a model run at once."""
    return sum(of_group(plan, group) for group in plan.models[model])


def waiting(plan: EdgePlan, model: str) -> int:
    """Return how many requests of a model may wait for an engine: as many as run."""
    return of_model(plan, model)


def lines(plan: EdgePlan) -> list[str]:
    """Return what each model takes, in words: at once, waiting, who is refused, and what is left without a group."""
    seconds, most = plan.settings.queue_seconds, plan.settings.max_connections
    told = [
        f"{model}: {of_model(plan, model):,} requests at once, {waiting(plan, model):,} more wait"
        f" for {seconds} s at most, others get 429"
        for model in sorted(plan.models)
    ]
    told += without_largest(plan)
    wanted = sum(of_model(plan, model) + waiting(plan, model) for model in plan.models)
    if wanted > most:
        told.append(
            f"edge_max_connections ends it before: {most:,} clients over HTTP/1.1, of {wanted:,} that may run or wait"
        )
    return told


def shortages(plan: EdgePlan, ready: Collection[str], asked: Mapping[str, int]) -> list[str]:
    """Return, in words, where groups are lost and the others of their model do not run what is asked for.

    Args:
        plan: of the edge.
        ready: groups that serve.
        asked: model -> requests that run or wait at the edges now.
    """
    told = []
    for model, groups in sorted(plan.models.items()):
        lost = [group.name for group in groups if group.name not in ready]
        runs, wanted = sum(of_group(plan, group) for group in groups if group.name in ready), asked.get(model, 0)
        if lost and wanted > runs:
            told.append(
                f"{model}: {wanted:,} requests run or wait; without {', '.join(lost)} "
                + (f"the others run {runs:,} at once, and what may not wait gets 429" if runs else "nobody serves it")
            )
    return told


def without_largest(plan: EdgePlan) -> list[str]:
    """Return, in words, what is left of each model when the group that runs most of its requests is lost."""
    return [_without_largest(plan, model) for model in sorted(plan.models)]


def _without_largest(plan: EdgePlan, model: str) -> str:
    groups = plan.models[model]
    largest = max(groups, key=lambda group: of_group(plan, group))
    if len(groups) == 1:
        return f"{model}: without {largest.name} nobody serves it"
    left = of_model(plan, model) - of_group(plan, largest)
    others = "the other one runs" if len(groups) == 2 else f"the other {len(groups) - 1} run"
    return f"{model}: without {largest.name} {others} {left:,} at once"
