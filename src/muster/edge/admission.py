"""How many requests the edge sends to engines at once, and how many more may wait there. Pure."""

from __future__ import annotations

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
    """Return what each model takes, in words: at once, waiting, and who is refused."""
    seconds, most = plan.settings.queue_seconds, plan.settings.max_connections
    told = [
        f"{model}: {of_model(plan, model):,} requests at once, {waiting(plan, model):,} more wait"
        f" for {seconds} s at most, others get 429"
        for model in sorted(plan.models)
    ]
    wanted = sum(of_model(plan, model) + waiting(plan, model) for model in plan.models)
    if wanted > most:
        told.append(
            f"edge_max_connections ends it before: {most:,} clients over HTTP/1.1, of {wanted:,} that may run or wait"
        )
    return told
