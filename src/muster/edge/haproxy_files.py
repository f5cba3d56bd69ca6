"""HAProxy's configuration and maps for the groups behind an edge, as they lie in /etc/haproxy. Pure.

HAProxy 2.4 (Ubuntu 22.04) knows all that is written; Debian 12 has 2.6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from muster.edge import admission, api_errors, fleet_page
from muster.edge.edge_plan import EdgeGroup, EdgePlan, backend, common, server
from muster.guard.page_style import POLICY
from muster.on_host import edge_places
from muster.plan.render import render

CONFIGURATION = edge_places.CONFIGURATION
MODELS, ENGINE_KEYS, CERTIFICATE, PAGE, REFUSE = (
    f"{edge_places.OWN}/{name}"
    for name in (
        edge_places.MODELS,
        edge_places.ENGINE_KEYS,
        edge_places.CERTIFICATE,
        edge_places.PAGE,
        edge_places.REFUSE,
    )
)
"""Paths below the tree, as the configuration names them."""
_MARK = "# Written by muster; a change here is undone by the next run of deploys/edge.py.\n"
_HEADROOM = 32 << 10
"""Bytes of a buffer for the head of a request and what HAProxy adds, beside the longest body."""
_REFUSED_AT_ONCE = 256
"""Connections above edge_max_connections that are accepted and told so: the kernel would let them wait, unanswered."""
_OPERATORS = 64
"""Connections of operators, who look when clients have all the others."""
_PAGE_HEADROOM = 8 << 10
"""Bytes of the same buffer beside the fleet's page, for the head of its answer."""


def files(plan: EdgePlan, tree: str = edge_places.TREE) -> dict[str, str]:
    """Return the files without a secret, by their path below the tree.

    Args:
        plan: of the edge.
        tree: where they will lie; the map of keys is named by its whole path, which its runtime socket knows it by.
    """
    room = _buffer(plan) - _PAGE_HEADROOM
    return {
        CONFIGURATION: configuration(plan, tree),
        MODELS: models_map(plan),
        PAGE: fleet_page.page(plan, room),
        **({REFUSE: refuse()} if plan.settings.http2 else {}),
    }


def refuse() -> str:
    """Return the program by which HAProxy answers what it refuses over HTTP/2."""
    answers = [(what, error.status, error.body, error.retry_after) for what, error in api_errors.REFUSED.items()]
    return render("haproxy_refuse.lua.j2", {"answers": answers})


def models_map(plan: EdgePlan) -> str:
    """Return model -> its backend, as HAProxy reads a map."""
    return _MARK + "".join(f"{model} {backend(model)}\n" for model in sorted(plan.models))


def engine_keys_map(keys: Mapping[str, str]) -> str:
    """Return backend -> the key of its engines.

    Args:
        keys: model -> key.
    """
    return _MARK + "".join(f"{backend(model)} {keys[model]}\n" for model in sorted(keys))


def model_list(plan: EdgePlan) -> str:
    """Return what GET /v1/models answers."""
    rows = [{"id": model, "object": "model", "created": 0, "owned_by": "muster"} for model in sorted(plan.models)]
    return json.dumps({"object": "list", "data": rows})


def configuration(plan: EdgePlan, tree: str = edge_places.TREE) -> str:
    """Return haproxy.cfg; arguments as of `files`."""
    settings = plan.settings
    return render(
        "haproxy.cfg.j2",
        {
            "socket": edge_places.SOCKET,
            "keys": f"{tree}/{edge_places.OWN}/{edge_places.KEY_MAP}",
            "port": settings.port,
            "http2": settings.http2,
            "connections": settings.max_connections,
            "accepted": settings.max_connections + _REFUSED_AT_ONCE,
            "all_connections": settings.max_connections + _REFUSED_AT_ONCE + _OPERATORS,
            "buffer": _buffer(plan),
            "max_body": settings.max_body,
            "silence": settings.silence,
            "queue_seconds": settings.queue_seconds,
            "by_session": settings.balance == "session",
            "by_prefix": settings.balance == "prefix",
            "prefix_bytes": settings.prefix_bytes,
            "session_header": settings.session_header,
            "paths": plan.paths,
            "monitor_port": settings.monitor_port,
            "monitors": plan.monitor_networks,
            "page_policy": POLICY,
            "listing": model_list(plan),
            **{f"refused_{what}": _answer(error) for what, error in api_errors.REFUSED.items()},
            "failed": [_answer(error) for error in api_errors.FAILED],
            "backends": [_backend(plan, model, groups) for model, groups in sorted(plan.models.items())],
        },
    )


def _buffer(plan: EdgePlan) -> int:
    return plan.settings.max_body + _HEADROOM


def _answer(error: api_errors.ApiError) -> tuple[int, str, int]:
    return error.status, error.body, error.retry_after


def _backend(plan: EdgePlan, model: str, groups: tuple[EdgeGroup, ...]) -> tuple[object, ...]:
    """Return name, paths, keyed, servers with the requests that each runs at once, how many more may wait, the load
    that one of them may have, in percent of the mean, and the DP ranks behind each that a prefix may name.
    """
    servers = [
        (
            server(group, endpoint),
            endpoint.address,
            endpoint.port,
            group.control.address,
            group.control.port,
            admission.per_endpoint(plan, group),
        )
        for group in groups
        for endpoint in group.endpoints
    ]
    keyed = groups[0].api_key_file is not None
    ranks = common({group.ranks for group in groups}) if plan.settings.prefix_ranks else 1
    waiting, crowding = admission.waiting(plan, model), _crowding(len(servers))
    return backend(model), groups[0].paths, keyed, servers, waiting, crowding, ranks


def _crowding(servers: int) -> int:
    """Return the percentage of the mean load that one of some servers may have where prompts begin alike.

    Three times the mean, and three quarters of all where they are few. A tighter bound keeps requests from their cache
    while hardly any are in flight (benchmarks/edge_prefix.py).
    """
    return min(300, max(150, 75 * servers))
