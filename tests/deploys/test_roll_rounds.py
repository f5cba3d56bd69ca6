"""Which groups of a roll may go on, judged from those before them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from muster.deploys.edge_servers import servers
from muster.deploys.roll import Roll
from muster.edge.edge_plan import EdgeGroup, EdgePlan, backend
from muster.plan.endpoint import Endpoint
from muster.spec.settings import Settings


def roll(**settled: bool) -> Roll:
    """Return a roll over groups of one host each, in rounds of two; whether each has come through is given."""
    runs = {
        name: SimpleNamespace(
            plan=SimpleNamespace(group=f"kimi-{name}", hosts={f"gpu-{name}": None}),
            progress=SimpleNamespace(settled=done),
        )
        for name, done in settled.items()
    }
    names = list(settled)
    return Roll(
        dict.fromkeys(names, "kimi-k2-instruct"),
        cast("Any", runs),
        {name: frozenset({f"gpu-{name}"}) for name in names},
        [tuple(names[at : at + 2]) for at in range(0, len(names), 2)],
        {},
        {},
        frozenset({"edge-0"}),
    )


def test_a_round_follows_when_every_group_before_it_serves() -> None:
    mine = roll(a=True, b=True, c=False)
    assert mine.failed_before(0, frozenset()) == []
    assert mine.failed_before(1, frozenset()) == []
    assert mine.failed_before(2, frozenset()) == ["kimi-c"]


def test_a_host_that_failed_after_its_group_was_verified_ends_the_roll_too() -> None:
    mine = roll(a=True, b=True, c=False)
    assert mine.failed_before(1, frozenset({"gpu-b"})) == ["kimi-b"]
    assert mine.failed_before(0, frozenset({"gpu-b"})) == []


def test_one_of_a_round_that_fails_ends_it() -> None:
    mine = roll(a=True, b=False, c=False)
    assert mine.failed_before(1, frozenset()) == ["kimi-b"]
    assert mine.names(1) == ("kimi-c",)


def test_a_host_has_one_group_in_a_round_and_an_edge_none() -> None:
    mine = roll(a=True, b=True, c=True)
    assert [mine.of_host(0, host) for host in ("gpu-a", "gpu-b", "gpu-c", "edge-0")] == ["a", "b", "", ""]
    assert mine.hosts == {"gpu-a", "gpu-b", "gpu-c", "edge-0"}


def test_servers_are_those_of_the_group_alone() -> None:
    groups = tuple(
        EdgeGroup(
            name,
            "kimi-k2",
            ("/v1/completions",),
            (Endpoint(host, "198.51.100.1", 8000),),
            Endpoint(host, "198.51.100.2", 29600),
            64,
        )
        for name, host in (("kimi-a", "gpu-0"), ("kimi-b", "gpu-1"))
    )
    place = {"address": "198.51.100.1", "port": 8000, "ready_address": "198.51.100.2", "ready_port": 29600}
    assert servers(EdgePlan(groups, Settings().edge), "kimi-b") == {f"{backend('kimi-k2')}/kimi-b_gpu-1": place}
