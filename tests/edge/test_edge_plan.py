"""What the edge takes out of groups' plans, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from muster.edge.edge_plan import EdgeGroup, backend, common, edge_group, edge_plan, server
from muster.errors import Refusal
from muster.plan.endpoint import Endpoint
from muster.spec.settings import Edge, Settings
from tests.sample_plans import plan

RECIPE = "kimi-k2-instruct"


def group(name: str = "a", model: str = "m", **more: object) -> EdgeGroup:
    endpoint = Endpoint("h0", "198.51.100.1", 8000)
    made = EdgeGroup(name, model, ("/v1/completions",), (endpoint,), Endpoint("h0", "198.51.100.1", 29600), 64)
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_group_is_its_heads_endpoint_and_guard() -> None:
    made = edge_group(plan(RECIPE, 2, "H200"), Settings(api_key_file="/k"))
    assert (made.name, made.model, made.api_key_file) == (RECIPE, "kimi-k2", "/k")
    assert made.paths == ("/v1/completions", "/v1/chat/completions")
    assert [endpoint.at for endpoint in made.endpoints] == ["198.51.100.1:8000"]
    assert made.control.at == "198.51.100.1:29600"
    assert (made.at_once, made.ranks) == (16 * 256, 16)


def test_every_host_that_answers_is_an_endpoint_and_the_head_speaks_for_all() -> None:
    hybrid = plan("tests/recipes/qwen3-235b.yaml", 2, "H200", strategy="each-answers")
    made = edge_group(hybrid, Settings())
    assert [endpoint.host for endpoint in made.endpoints] == list(hybrid.hosts)
    assert made.control.host == hybrid.head.name
    assert made.ranks == len(hybrid.head.dp_ranks)
    assert made.at_once == hybrid.sequences * made.ranks


def test_the_requests_that_an_engine_runs_at_once_are_those_of_its_ranks() -> None:
    spread = plan(RECIPE, 2, "H200", strategy="dp-ep", max_num_seqs=128)
    assert edge_group(spread, Settings()).at_once == 16 * 128


def test_no_rank_is_named_where_endpoints_differ() -> None:
    assert [common(ranks) for ranks in ({4}, {4, 8}, {1})] == [4, 1, 1]


def test_a_group_without_a_guard_is_refused() -> None:
    with pytest.raises(Refusal, match="no guard"):
        edge_group(plan(RECIPE, 2, "H200", supervisor="systemd"), Settings())


def test_groups_of_one_model_are_behind_one_name() -> None:
    made = edge_plan([group("a"), group("b"), group("c", "n")], Edge())
    assert {model: [each.name for each in groups] for model, groups in made.models.items()} == {
        "m": ["a", "b"],
        "n": ["c"],
    }


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([], "no group"),
        ([group(), group(model="n")], "more than one group of that name"),
        ([group("a"), group("b", api_key_file="/k")], "a, b, whose api_key_file differs"),
        ([group("a"), group("b", paths=("/v1/embeddings",))], "kind of endpoint differs"),
    ],
)
def test_what_no_edge_can_serve_is_refused(groups: list[EdgeGroup], words: str) -> None:
    with pytest.raises(Refusal, match=words):
        edge_plan(groups, Edge())


def test_backends_are_named_after_models_and_never_alike() -> None:
    names = [backend(model) for model in ("org/Model-1.5", "org/model-1-5", "/", "x" * 256)]
    assert names[0].startswith("org-model-1-5-")
    assert len(set(names)) == len(names)
    assert server(group("a"), Endpoint("gpu.7", "198.51.100.1", 1)) == "a_gpu-7"


def test_clients_and_operators_have_a_port_each() -> None:
    with pytest.raises(Refusal, match="edge_port and edge_monitor_port are both 8405"):
        edge_plan([group()], Edge(port=8405))
