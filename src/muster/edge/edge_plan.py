"""What the edge needs of the groups behind it, taken from their plans. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from muster.errors import Refusal
from muster.guard.endpoint_kinds import COMPLETIONS
from muster.plan.endpoint import Endpoint
from muster.plan.types import Plan
from muster.spec.settings import Edge, Settings

_MORE_PATHS: Mapping[str, tuple[str, ...]] = {COMPLETIONS: ("/v1/chat/completions",)}
"""Kind of endpoint -> paths that clients use besides the one that the guard asks."""


@dataclass(frozen=True)
class EdgeGroup:
    """One group, as the edge sees it.

    Args:
        name: of the group.
        model: its name in the API.
        paths: of the API that clients may POST to.
        endpoints: where the engine answers.
        control: where the guard answers `/ready`, which knows whether every rank answers.
        at_once: requests that the engine behind each endpoint runs at once.
        api_key_file: file on the control machine with the engine's key; None where it asks for none.
        monitor_networks: who may ask the group's guard.
        ranks: DP ranks behind each endpoint that a request's header may name; 1 where none may, or endpoints differ.
    """

    name: str
    model: str
    paths: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    control: Endpoint
    at_once: int
    api_key_file: str | None = None
    monitor_networks: tuple[str, ...] = ()
    ranks: int = 1


@dataclass(frozen=True)
class EdgePlan:
    """The groups behind an edge, and how clients reach them; `edge_plan` makes one."""

    groups: tuple[EdgeGroup, ...]
    settings: Edge

    @cached_property
    def models(self) -> dict[str, tuple[EdgeGroup, ...]]:
        """Model -> the groups that serve it."""
        models: dict[str, tuple[EdgeGroup, ...]] = {}
        for group in self.groups:
            models[group.model] = (*models.get(group.model, ()), group)
        return models

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Every path that clients may POST to."""
        return tuple(sorted({path for group in self.groups for path in group.paths}))

    @cached_property
    def monitor_networks(self) -> tuple[str, ...]:
        """Who may read metrics and page of the edge: whoever may ask the guard of a group."""
        return tuple(sorted({network for group in self.groups for network in group.monitor_networks}))


def edge_group(plan: Plan, settings: Settings) -> EdgeGroup:
    """Return what the edge needs of a group.

    Args:
        plan, settings: of the group.

    Raises:
        Refusal: a group without a guard, which alone knows whether every rank answers.
    """
    if not plan.heals:
        raise Refusal(
            f"{plan.group} has no guard, and an engine's own /health says 200 while a rank hangs",
            needed="a guard: the edge asks it for /ready",
            fix='supervisor = "guard" in group_data, then muster deploy',
        )
    return EdgeGroup(
        plan.group,
        plan.served_model_name,
        (plan.kind.path, *_MORE_PATHS.get(plan.endpoint_kind, ())),
        tuple(Endpoint(host.name, host.address, settings.port) for host in plan.hosts.values() if host.answers),
        Endpoint(plan.head.name, plan.head.address, settings.control_port),
        min(plan.requests_at_once.values()),
        settings.api_key_file,
        tuple(settings.monitor_networks),
        common({*plan.ranks_behind.values()}) if plan.kind.by_rank else 1,
    )


def edge_plan(groups: Iterable[EdgeGroup], settings: Edge) -> EdgePlan:
    """Return the plan of an edge.

    Args:
        groups: behind it.
        settings: of the edge.

    Raises:
        Refusal: no group, one port twice, a name twice, groups of one model that ask for different keys or answer
            different paths.
    """
    made = EdgePlan(tuple(groups), settings)
    if not made.groups:
        raise Refusal("no group behind the edge", needed="at least one that serves a model")
    if settings.port == settings.monitor_port:
        raise Refusal(
            f"edge_port and edge_monitor_port are both {settings.port}",
            needed="a port for clients, and one for operators",
            fix="another edge_monitor_port",
        )
    names = [group.name for group in made.groups]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Refusal(f"{', '.join(twice)}: more than one group of that name", fix="name each group (`group`)")
    for model, serving in made.models.items():
        for what, values in (
            ("api_key_file", {group.api_key_file for group in serving}),
            ("kind of endpoint", {group.paths for group in serving}),
        ):
            if len(values) > 1:
                raise Refusal(
                    f"{model} is served by {', '.join(group.name for group in serving)}, whose {what} differs",
                    needed="the same for all groups of a model: a request may go to any of them",
                    fix=f"one {what}, or another served_model_name",
                )
    return made


def common(ranks: Collection[int]) -> int:
    """Return how many DP ranks there are behind every endpoint; 1 where they differ, and no number fits all."""
    (one, *others) = {*ranks}
    return 1 if others else one


def backend(model: str) -> str:
    """Return the name of a model's backend: of letters, digits and dashes, and no other model's."""
    readable = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:40]
    return f"{readable or 'model'}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"


def server(group: EdgeGroup, endpoint: Endpoint) -> str:
    """Return the name of an endpoint within its backend."""
    return "_".join(re.sub(r"[^A-Za-z0-9-]+", "-", part) for part in (group.name, endpoint.host))
