"""How the ranks of a host share the loading of weights, and who skips the experts of others."""

from __future__ import annotations

from typing import Any

import pytest

from muster.plan import load_ranks
from muster.plan.layout import Layout
from muster.plan.load_ranks import FILTER, LoadRanks
from muster.spec.shape import Shape
from tests import sample_plans
from tests.plan.test_cold_load import DENSE, EXPERTS, layout

DP_EP = layout(tp=1, dp=16, dp_local=8, expert_parallel=True)


@pytest.mark.parametrize(
    ("shape", "sizes", "ranks"),
    [
        (DENSE, layout(), LoadRanks(8, 8, 8)),
        (DENSE, layout(tp=16, engine_hosts=2), LoadRanks(8, 16, 8)),
        (DENSE, layout(pp=2, engine_hosts=2), LoadRanks(8, 8, 8)),
        (DENSE, layout(tp=4, pp=2), LoadRanks(8, 4, 8)),
        (DENSE, layout(tp=1, dp=16, dp_local=8), LoadRanks(8, 1, 1)),  # vLLM has a world for each dense DP rank
        (DENSE, layout(tp=2, dp=8, dp_local=4), LoadRanks(8, 2, 2)),
        (DENSE, layout(tp=2, pp=2, dp=2, dp_local=2), LoadRanks(8, 2, 4)),
        (EXPERTS, DP_EP, LoadRanks(8, 1, 8, 256, 16)),
        (EXPERTS, layout(tp=2, dp=8, dp_local=4, expert_parallel=True), LoadRanks(8, 2, 8, 256, 16)),
        (EXPERTS, layout(expert_parallel=True), LoadRanks(8, 8, 8, 256, 8)),
        (EXPERTS, layout(tp=1, dp=16, dp_local=8), LoadRanks(8, 1, 8)),  # experts in slices: nobody skips any
        (EXPERTS, layout(tp=1, expert_parallel=True), LoadRanks(1, 1, 1)),
        (None, DP_EP, LoadRanks(8, 1, 1)),
    ],
)  # fmt: skip
def test_the_ranks_of_a_host(shape: Shape | None, sizes: Layout, ranks: LoadRanks) -> None:
    assert load_ranks.of(shape, sizes, filtered=False) == ranks


def test_who_skips_experts_before_reading_has_some() -> None:
    assert load_ranks.of(EXPERTS, DP_EP, filtered=True).filtered
    assert not load_ranks.of(DENSE, DP_EP, filtered=True).filtered


def test_every_host_is_asked_for_its_own_experts() -> None:
    ranks = load_ranks.of(EXPERTS, DP_EP, filtered=True)
    asked = [ranks.request(node_rank=node, seconds=9) for node in (0, 1)]
    assert [each["experts"] for each in asked] == [{"count": 256, "ranks": 16, "first": first} for first in (0, 8)]
    assert {key: asked[0][key] for key in asked[0] if key != "experts"} == {
        "ranks": 8, "tensor_parallel": 1, "together": 8, "filtered": True, "seconds": 9,
    }  # fmt: skip
    assert load_ranks.of(DENSE, layout(), filtered=False).request(node_rank=1, seconds=9)["experts"] is None


def test_the_key_tells_layouts_apart() -> None:
    all_of = [
        load_ranks.of(shape, sizes, filtered=filtered)
        for shape in (DENSE, EXPERTS)
        for sizes in (layout(), layout(tp=4, pp=2), layout(tp=2, dp=8, dp_local=4), DP_EP)
        for filtered in (False, True)
    ]
    assert len({each.key for each in all_of}) == len(set(all_of))
    assert load_ranks.of(EXPERTS, DP_EP, filtered=True).key == "8-1-8-256-16-1"


@pytest.mark.parametrize(
    ("sizes", "flags", "version", "expected"),
    [
        (DP_EP, {}, "0.33.0", True),
        (DP_EP, {}, "0.20.0", True),
        (DP_EP, {}, "0.19.1", False),
        (DP_EP, {"enable-eplb": True}, "0.33.0", False),
        (DP_EP, {"enable-eplb": ""}, "0.33.0", False),
        (DP_EP, {"enable-eplb": False}, "0.33.0", True),
        (DP_EP, {f"no-{FILTER}": ""}, "0.33.0", False),
        (DP_EP, {FILTER: ""}, "0.33.0", False),  # said already
        (layout(expert_parallel=True), {}, "0.33.0", False),
        (layout(tp=16, engine_hosts=2, expert_parallel=True), {}, "0.33.0", False),
        (layout(tp=1, dp=16, dp_local=8), {}, "0.33.0", False),
    ],
)
def test_where_the_filter_is_set(sizes: Layout, flags: dict[str, Any], version: str, expected: bool) -> None:
    assert load_ranks.filters(sizes, flags, version) is expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": "dp-ep"}, [f"--{FILTER}"]),
        ({"strategy": "dp-ep", "extra_args": [f"--{FILTER}"]}, [f"--{FILTER}"]),
        ({"strategy": "dp-ep", "extra_args": [f"--no-{FILTER}"]}, [f"--no-{FILTER}"]),
        ({"strategy": "dp-ep", "extra_args": ["--enable-eplb"]}, []),
        ({"strategy": "tp-pp"}, []),
    ],
)
def test_the_command_line_says_it_once(settings: dict[str, Any], words: list[str]) -> None:
    made = sample_plans.plan("kimi-k2-instruct", 2, "H200", model="/srv/m", offline=True, **settings)
    for host in made.hosts.values():
        assert [word for word in host.processes[-1].argv if FILTER in word] == words
    assert made.loaders is not None
    assert made.loaders.ranks.filtered == (f"--{FILTER}" in words)
