"""How many requests reach engines at once: by the plan, in words, and in a real HAProxy on loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.edge import admission
from muster.edge.edge_plan import backend, edge_plan
from muster.on_host import edge_load
from muster.plan.endpoint import Endpoint
from muster.spec.settings import Edge
from tests.edge.live import SECONDS, Answer, Engine, LiveEdge, record
from tests.edge.test_edge_plan import group

KEY = "sk-1"


def test_every_endpoint_takes_what_its_plan_says_or_the_setting() -> None:
    endpoints = tuple(Endpoint(f"h{index}", f"198.51.100.{index}", 8000) for index in range(3))
    groups = [group("a", at_once=64), group("b", at_once=100, endpoints=endpoints), group("c", "n")]
    planned, told = edge_plan(groups, Edge()), edge_plan(groups, Edge(max_requests=10))
    assert [admission.of_group(planned, each) for each in planned.groups] == [64, 300, 64]
    assert [admission.of_model(each, "m") for each in (planned, told)] == [364, 40]
    assert admission.lines(planned) == [
        "m: 364 requests at once, 364 more wait for 30 s at most, others get 429",
        "n: 64 requests at once, 64 more wait for 30 s at most, others get 429",
        "m: without b the other one runs 64 at once",
        "n: without c nobody serves it",
    ]


def test_a_lost_group_is_told_where_the_others_do_not_run_what_is_asked_for() -> None:
    there = edge_plan([group(name, at_once=64) for name in "abc"] + [group("d", "n", at_once=64)], Edge())
    assert admission.shortages(there, {"a", "b", "c", "d"}, {"m": 1000, "n": 1000}) == []
    assert admission.shortages(there, {"a", "c"}, {"m": 128, "n": 1000}) == [
        "n: 1,000 requests run or wait; without d nobody serves it"
    ]
    assert admission.shortages(there, {"a", "c", "d"}, {"m": 129}) == [
        "m: 129 requests run or wait; without b the others run 128 at once, and what may not wait gets 429"
    ]
    assert admission.shortages(there, {"d"}, {}) == []


def test_fewer_connections_than_engines_take_are_said() -> None:
    assert (
        "500 clients over HTTP/1.1, of 2,000 that"
        in admission.lines(edge_plan([group(at_once=1000)], Edge(max_connections=500)))[-1]
    )


@contextlib.contextmanager
def before_one_engine(directory: Path, **settings: int) -> Iterator[tuple[LiveEdge, Engine]]:
    engine = Engine("a")
    made = LiveEdge(directory, {"a": ("m", [engine])}, **settings)
    made.keys(**{KEY: record("one")})
    try:
        with made as edge:
            yield edge, engine
    finally:
        engine.close()


@contextlib.contextmanager
def asking(edge: LiveEdge, count: int, answers: list[Answer]) -> Iterator[None]:
    """Ask so many times at once, each for an answer that waits for the engine's gate."""
    threads = [
        threading.Thread(target=lambda: answers.append(edge.ask(KEY, model="m", wait=True))) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(SECONDS)


@pytest.mark.slow  # real processes on real sockets
def test_what_engines_do_not_take_waits_and_what_may_not_wait_comes_again(tmp_path: Path) -> None:
    admitted: list[Answer] = []
    with before_one_engine(tmp_path, edge_max_requests=2) as (edge, engine), asking(edge, 2, admitted):
        edge.wait(lambda: len(engine.requests) == 2)
        with asking(edge, 2, admitted):
            edge.wait(lambda: edge.metric("haproxy_backend_current_queue") == 2)
            # As MusterEdgeCannotCarry reads them.
            assert edge.metric("haproxy_backend_current_sessions", f'proxy="{backend("m")}"') == 4
            assert edge.metric("haproxy_server_limit_sessions") == 2
            assert edge_load.main({"socket": edge.socket})["asked"][backend("m")] == 4
            refused = [edge.ask(KEY, model="m") for _ in range(5)]
            assert {(each.status, each.code, each.headers["Retry-After"]) for each in refused} == {
                (429, "overloaded", "5")
            }
            assert len(engine.requests) == 2
            engine.gate.set()
    assert [answer.json for answer in admitted] == [{"from": "a"}] * 4


@pytest.mark.slow  # real processes on real sockets
def test_nobody_waits_longer_than_said_and_connections_have_an_end(tmp_path: Path) -> None:
    given = {"edge_max_requests": 1, "edge_queue_seconds": 1, "edge_max_connections": 3}
    admitted: list[Answer] = []
    with before_one_engine(tmp_path, **given) as (edge, engine), asking(edge, 1, admitted):
        edge.wait(lambda: len(engine.requests) == 1)
        late = edge.ask(KEY, model="m")
        assert (late.status, late.code, late.headers["Retry-After"]) == (503, "no_engine", "5")
        with contextlib.ExitStack() as idle:
            for _ in range(2):
                idle.enter_context(edge.open()).connect()
            refused = edge.ask(KEY, model="m")
            assert (refused.status, refused.code) == (429, "overloaded")
            # Operators see it meanwhile.
            assert edge.metric("haproxy_frontend_current_sessions", 'proxy="edge"') >= 3
        engine.gate.set()
    assert [answer.status for answer in admitted] == [200]
