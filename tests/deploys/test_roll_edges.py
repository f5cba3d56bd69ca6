"""Groups that answer elsewhere once they are changed: which edges are told, when, and what is refused before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from muster.deploys import roll_edges
from muster.deploys.edge_drain import EdgeDrain
from muster.deploys.edge_servers import Seen, as_deployed, servers
from muster.deploys.roll_edges import answers_elsewhere, at_edges
from muster.edge.edge_plan import EdgeGroup, EdgePlan, edge_group
from muster.errors import Refusal
from muster.plan import manifest
from muster.plan.endpoint import Endpoint
from muster.plan.types import Plan
from muster.spec.settings import Settings
from tests.sample_plans import plan

EDGES = frozenset({"edge-0", "edge-1"})


def edge_plan(*names: str) -> EdgePlan:
    groups = tuple(
        EdgeGroup(
            f"kimi-{name}",
            "kimi-k2",
            ("/v1/completions",),
            (Endpoint(f"gpu-{name}", "198.51.100.1", 8001),),
            Endpoint(f"gpu-{name}", "198.51.100.1", 29601),
            64,
        )
        for name in names
    )
    return EdgePlan(groups, Settings().edge)


def run(name: str, *, ready: bool, endpoint: str = "") -> Any:
    """Return a run of a group of one host: as planned and ready, or about to be stopped and changed.

    Whether it answers is asked where it is to be: one that moves does not.
    """
    stopped = {f"gpu-{name}": SimpleNamespace(stop=not ready)}
    decision = SimpleNamespace(ready=ready, answers=ready, restart=not ready, hosts=stopped)
    planned = SimpleNamespace(
        group=f"kimi-{name}", endpoint="http://198.51.100.1:8001", steps=(), served_model_name="kimi-k2"
    )
    planned.hosts = {f"gpu-{name}": SimpleNamespace()}
    return SimpleNamespace(plan=planned, decision=decision, endpoint=endpoint or planned.endpoint)


def found(
    monkeypatch: pytest.MonkeyPatch,
    runs: dict[str, Any],
    *,
    elsewhere: Sequence[str] = (),
    reached: Sequence[str] = tuple(sorted(EDGES)),
    others: Sequence[str] = (),
) -> dict[str, EdgeDrain]:
    """Return the drains of a roll of these groups, one a round, where edge-0 has some of them elsewhere.

    Args:
        runs: group -> its run.
        elsewhere: groups.
        reached: edges that answer.
        others: groups that serve the same model and are none of the run.
    """
    behind = edge_plan(*runs, *others)
    names = {name for group in elsewhere for name in servers(behind, f"kimi-{group}")}
    seen = {
        edge: Seen(
            (), alone=False, elsewhere=dict.fromkeys(names if edge == "edge-0" else (), "x"), up=tuple(sorted(names))
        )
        for edge in reached
    }
    endpoints = {name: made.endpoint for made in runs.values() for name in made.plan.hosts}
    hosts = {name: SimpleNamespace(name=name) for name in (*reached, *endpoints)}

    def probe(_state: object, host: Any, program: str, _request: object, seconds: int) -> dict[str, Any]:
        group = host.name.replace("gpu", "kimi")
        return {"groups": {group: {"endpoint": endpoints[host.name]}}} if program == "probe_group" else {"error": "no"}

    monkeypatch.setattr(roll_edges, "reached", lambda _state: hosts)
    monkeypatch.setattr(roll_edges, "run_program", probe)
    monkeypatch.setattr(roll_edges, "look", lambda *_: seen)
    monkeypatch.setattr(roll_edges, "drain_seconds", lambda _run: 5)
    model = SimpleNamespace(served_model_name="kimi-k2")
    fleet = SimpleNamespace(plans=dict.fromkeys((*runs, *others), model))
    drains, left = at_edges(cast("Any", None), cast("Any", fleet), behind, EDGES, runs, [(group,) for group in runs])
    assert left == {}
    return drains


def test_edges_that_have_a_group_elsewhere_are_told_once_it_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    drains = found(monkeypatch, {"a": run("a", ready=False), "b": run("b", ready=False)}, elsewhere="ab")
    assert {group: (drain.moves, drain.stays) for group, drain in drains.items()} == {
        "a": (frozenset({"edge-0"}), False),
        "b": (frozenset({"edge-0"}), False),
    }
    assert set(drains["a"].edges) == EDGES


def test_a_group_that_is_as_planned_is_followed_before_the_next_one_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier run was cut between its change and the edge."""
    drains = found(monkeypatch, {"a": run("a", ready=True), "b": run("b", ready=False)}, elsewhere="ab")
    assert list(drains) == ["a", "b"]
    assert (drains["a"].moves, drains["a"].stays) == (frozenset({"edge-0"}), True)


def test_a_group_that_is_as_planned_and_where_it_should_be_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(found(monkeypatch, {"a": run("a", ready=True), "b": run("b", ready=False)})) == ["b"]


def test_a_group_that_alone_serves_its_model_stays_in_and_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    drains = found(monkeypatch, {"a": run("a", ready=False)}, elsewhere="a")
    assert (drains["a"].moves, drains["a"].stays) == (frozenset({"edge-0"}), True)
    assert found(monkeypatch, {"a": run("a", ready=False)}) == {}


@pytest.mark.parametrize("elsewhere", ["a", ""], ids=["an edge that answers knows it", "its own manifest says so"])
def test_an_edge_that_would_not_be_told_is_refused_before(monkeypatch: pytest.MonkeyPatch, elsewhere: str) -> None:
    moving = run("a", ready=False, endpoint="" if elsewhere else "http://198.51.100.1:8000")
    with pytest.raises(Refusal) as refusal:
        found(monkeypatch, {"a": moving}, elsewhere=elsewhere, reached=("edge-0",), others="b")
    assert refusal.value.found == (
        "kimi-a answers at other addresses once it is changed, and edge-1 gave no answer over SSH"
    )


def test_an_edge_out_of_reach_keeps_no_group_from_a_change_that_it_need_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drains = found(monkeypatch, {"a": run("a", ready=False)}, reached=("edge-0",), others="b")
    assert (drains["a"].moves, drains["a"].stays) == (frozenset(), False)
    # What serves already is brought back to the edges that answer; the other one is as it was.
    assert found(monkeypatch, {"a": run("a", ready=True)}, elsewhere="a", reached=("edge-0",))["a"].stays


def manifests(of: Plan) -> dict[str, dict[str, Any]]:
    return {name: json.loads(host.files[manifest.path(of.group)].text) for name, host in of.hosts.items()}


HYBRID = {"name": "tests/recipes/qwen3-235b.yaml", "count": 2, "gpu": "H200", "strategy": "each-answers"}
KIMI = {"name": "kimi-k2-instruct", "count": 2, "gpu": "H200"}


@pytest.mark.parametrize("recipe", [KIMI, HYBRID], ids=["one endpoint", "an endpoint on each host"])
@pytest.mark.parametrize("changed", [{"port": 8001}, {"control_port": 29601}])
def test_where_a_group_on_the_hosts_answers_is_read_from_their_manifests(
    recipe: dict[str, Any], changed: dict[str, int]
) -> None:
    before, after = plan(**recipe), plan(**recipe, **changed)
    seen = [*manifests(before).values()]
    assert (answers_elsewhere(after, seen), answers_elsewhere(before, seen)) == (True, False)
    assert not answers_elsewhere(after, [{}])
    addresses = {name: host.address for name, host in after.hosts.items()}
    deployed = as_deployed(edge_group(after, Settings(**changed)), manifests(before), addresses)
    assert deployed == edge_group(before, Settings())


def test_hosts_that_do_not_say_where_they_answer_move_nothing() -> None:
    of = plan(**KIMI)
    group, addresses = edge_group(of, Settings()), {name: host.address for name, host in of.hosts.items()}
    for damage in ({"endpoint": "http://198.51.100.1"}, {"endpoint": "http://x:99999999"}, {"steps": []}, {"steps": 3}):
        parts = {name: part | damage for name, part in manifests(of).items()}
        assert as_deployed(group, parts, addresses) is None
    assert as_deployed(group, manifests(of), {}) is None


def test_no_host_sends_an_edge_to_another_machine() -> None:
    of = plan(**KIMI)
    group, addresses = edge_group(of, Settings()), {name: host.address for name, host in of.hosts.items()}
    parts = {name: part | {"endpoint": "http://203.0.113.9:8000"} for name, part in manifests(of).items()}
    assert as_deployed(group, parts, addresses) == group
