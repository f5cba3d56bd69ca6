"""The servers of groups at the edges of a run: what HAProxy calls them, where they are to be, and where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.edge.edge_plan import EdgeGroup, EdgePlan, backend, server
from muster.hosts.all_hosts import each
from muster.hosts.run_programs import run_program, run_programs
from muster.on_host.move_servers import whose
from muster.plan.endpoint import Endpoint

_SECONDS = 60

Servers = Mapping[str, Mapping[str, Any]]
"""Server, as HAProxy calls it (backend/server) -> its place, as `muster.on_host.move_servers` takes it."""


@dataclass(frozen=True)
class Seen:
    """What one edge has of some servers.

    Args:
        drained: those that are held out.
        alone: whether in a model of theirs no other server is up.
        elsewhere: those that are not where they are to be -> where they are, in words.
        up: those that answer, wherever they are.
    """

    drained: tuple[str, ...]
    alone: bool
    elsewhere: Mapping[str, str]
    up: tuple[str, ...] = ()

    def moves(self, servers: Iterable[str]) -> bool:
        """Whether a group's servers are elsewhere."""
        return _of_one_group(servers, self.elsewhere)

    def has(self, servers: Iterable[str]) -> bool:
        """Whether a group's servers answer there, wherever they are."""
        return _of_one_group(servers, self.up)


def _of_one_group(some: Iterable[str], others: Iterable[str]) -> bool:
    return bool({whose(name) for name in some} & {whose(name) for name in others})


def servers(plan: EdgePlan, group: str) -> Servers:
    """Return the servers of a group.

    Args:
        plan: of the edge.
        group: its name.
    """
    return {name: place for each in plan.groups if each.name == group for name, place in servers_of(each).items()}


def servers_of(group: EdgeGroup) -> Servers:
    """Return the servers of a group, as `servers`."""
    return {
        f"{backend(group.model)}/{server(group, endpoint)}": {
            "address": endpoint.address,
            "port": endpoint.port,
            "ready_address": group.control.address,
            "ready_port": group.control.port,
        }
        for endpoint in group.endpoints
    }


def as_deployed(
    group: EdgeGroup, manifests: Mapping[str, Mapping[str, Any]], addresses: Mapping[str, str]
) -> EdgeGroup | None:
    """Return a group where it answers by the manifests on its hosts, which need not be where its plan has it.

    Hosts name ports alone: none can have the edge send requests to another machine.

    Args:
        group: as planned.
        manifests: host -> its manifest.
        addresses: host -> its address, by the inventory.

    Returns:
        None where they do not say: another muster wrote them, or they are not those of all hosts.
    """
    endpoints: list[Endpoint] = []
    control: Endpoint | None = None
    try:
        for name, manifest in manifests.items():
            if manifest.get("role") in ("head", "serving"):
                endpoints.append(Endpoint(name, addresses[name], _port(manifest.get("endpoint"))))
            for target in (check["target"] for step in manifest["steps"] for check in step["checks"]):
                if str(target).endswith("/ready"):
                    control = Endpoint(name, addresses[name], _port(target))
    except (KeyError, TypeError, ValueError):
        return None
    return replace(group, endpoints=tuple(endpoints), control=control) if endpoints and control is not None else None


def _port(url: Any) -> int:
    """Return the port that a URL names.

    Raises:
        ValueError: none.
    """
    port = urlsplit(str(url)).port
    if port is None:
        raise ValueError(f"no port in {url}")
    return port


def look(state: State, hosts: Iterable[Host], servers: Servers) -> dict[str, Seen]:
    """Return edge -> what it has of servers, of the edges that say so; changes nothing.

    Args:
        state: pyinfra's.
        hosts: edges that were reached.
        servers: of some groups, all of each.
    """
    requests: dict[str, dict[str, Any]] = {
        "drain_servers": {"do": "read", "servers": list(servers)},
        "move_servers": {"do": "read", "servers": servers},
    }
    answers = each(hosts, lambda host: run_programs(state, host, requests, seconds=_SECONDS))
    return {
        name: Seen(
            tuple(answer["drain_servers"]["drained"]),
            bool(answer["drain_servers"]["alone"]),
            answer["move_servers"]["elsewhere"],
            tuple(answer["drain_servers"]["up"]),
        )
        for name, answer in answers.items()
        if not any("error" in part for part in answer.values())
    }


def move(state: State, host: Host, servers: Servers) -> str:
    """Bring servers of an edge to their places; return why it did not, empty where it did."""
    request = {"do": "move", "servers": servers}
    return str(run_program(state, host, "move_servers", request, seconds=_SECONDS).get("error", ""))
