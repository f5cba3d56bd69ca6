"""An edge follows a group to other addresses: in its files as rendered, and with a real HAProxy under requests."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.deploys.edge_servers import servers_of
from muster.edge import haproxy_files
from muster.edge.edge_plan import EdgeGroup, edge_plan
from muster.on_host import drain_servers, haproxy_socket, move_servers
from muster.plan.endpoint import Endpoint
from muster.spec.settings import Edge
from tests.edge.live import Engine, LiveEdge, record
from tests.edge.test_haproxy_files import KIMI, QWEN

ALL = "sk-of-all-models"


def elsewhere(group: EdgeGroup, address: str | None = None) -> EdgeGroup:
    """Return a group with other ports, and at another address where one is given."""

    def at(endpoint: Endpoint, port: int) -> Endpoint:
        return dataclasses.replace(endpoint, port=port, address=address or endpoint.address)

    endpoints = tuple(at(endpoint, 8100 + index) for index, endpoint in enumerate(group.endpoints))
    return dataclasses.replace(group, endpoints=endpoints, control=at(group.control, 29700))


@pytest.mark.parametrize("address", [None, "2001:db8::7"])
def test_what_is_written_is_what_would_be_rendered(address: str | None) -> None:
    before = haproxy_files.configuration(edge_plan([KIMI, QWEN], Edge()))
    for moving, others in ((KIMI, [QWEN]), (QWEN, [KIMI])):
        after = elsewhere(moving, address)
        groups = sorted([after, *others], key=lambda group: group.model)
        request = {name: move_servers._place(dict(place)) for name, place in servers_of(after).items()}
        assert move_servers.moved(before, request) == haproxy_files.configuration(edge_plan(groups, Edge()))
        back = {name: move_servers._place(dict(place)) for name, place in servers_of(moving).items()}
        assert move_servers.moved(move_servers.moved(before, request), back) == before


@pytest.fixture
def engines() -> Iterator[dict[str, Engine]]:
    made = {name: Engine(name) for name in ("a0", "a1", "new")}
    yield made
    for engine in made.values():
        engine.close()


@pytest.mark.slow
def test_a_group_is_followed_under_requests_and_no_reload_or_restart_goes_back(
    engines: dict[str, Engine], tmp_path: Path
) -> None:
    edge = LiveEdge(tmp_path, {"a": ("org/a", [engines["a0"], engines["a1"]])})
    edge.keys(**{ALL: record("all")})
    first = edge.plan.groups[0]
    new = Endpoint("host", "127.0.0.1", engines["new"].port)
    (name,) = planned = servers_of(dataclasses.replace(first, endpoints=(new,), control=new))

    def move(do: str) -> dict[str, str]:
        answer: dict[str, dict[str, str]] = move_servers.main(
            {"do": do, "servers": planned, "tree": str(edge.tree), "socket": edge.socket}
        )
        return answer["elsewhere"]

    def sources() -> set[str]:
        return {edge.ask(ALL, model="org/a").json["from"] for _ in range(6)}

    with edge:
        assert sources() == {"a0", "a1"}
        statuses: list[int] = []
        done = threading.Event()

        def work() -> None:
            while not done.is_set():
                statuses.append(edge.ask(ALL, model="org/a").status)

        workers = [threading.Thread(target=work) for _ in range(2)]
        for thread in workers:
            thread.start()
        try:
            haproxy_socket.ask(edge.socket, f"set server {name} state drain")
            edge.wait(lambda: [row["scur"] for row in rows(edge) if row["svname"] == name.split("/")[1]] == ["0"])
            engines["a0"].close()
            assert [*move("read")] == [name]
            assert [*move("move")] == [name]
            haproxy_socket.ask(edge.socket, f"set server {name} state ready")
            edge.wait(lambda: engines["new"].requests)
        finally:
            done.set()
            for thread in workers:
                thread.join()
        assert set(statuses) == {200}
        assert (move("read"), sources()) == ({}, {"new", "a1"})
        edge.reload()
        assert (move("read"), sources()) == ({}, {"new", "a1"})
    with edge:
        assert (move("read"), sources()) == ({}, {"new", "a1"})


def rows(edge: LiveEdge) -> list[dict[str, str]]:
    return haproxy_socket.statistics(edge.socket)


@pytest.mark.slow
def test_one_that_is_held_out_is_found_while_it_is_down(engines: dict[str, Engine], tmp_path: Path) -> None:
    edge = LiveEdge(tmp_path, {"a": ("org/a", [engines["a0"], engines["a1"]])})
    servers = [name for group in edge.plan.groups for name in servers_of(group)]
    request = {"servers": servers, "socket": edge.socket}
    with edge:
        engines["a0"].ready = False
        edge.wait(lambda: drain_servers.main({**request, "do": "read"})["up"] == servers[1:])
        assert drain_servers.main({**request, "do": "read"})["drained"] == []
        haproxy_socket.ask(edge.socket, f"set server {servers[0]} state drain")
        assert drain_servers.main({**request, "do": "read"})["drained"] == servers[:1]
        assert drain_servers.main({**request, "do": "ready"})["drained"] == []
