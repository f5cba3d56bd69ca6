"""Sizes on hosts: every GPU in one rank at most, engines that come out even, and words for what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.deploys.verify import request
from muster.errors import Refusal
from muster.plan import strategies
from muster.plan.layout import Layout, lay_out
from muster.plan.make import build_plan
from muster.plan.topology import build_topology
from muster.plan.types import Plan
from muster.spec import recipe as recipes
from muster.spec.settings import Settings
from muster.spec.sizes import Sizes
from muster.spec.strategy import Strategy
from tests.sample_plans import engine_flags, hosts

QWEN = recipes.load(str(Path(__file__).parents[1] / "recipes" / "qwen3-235b.yaml"))


def planned(strategy: str, count: int, gpus: int = 8, **settings: object) -> Plan:
    given = Settings(strategy=strategy, allow_oversubscription=True, **settings)  # type: ignore[arg-type]
    return build_plan(QWEN, hosts(count, "H200", gpus), given)


def ranks_of(flags: dict[str, str]) -> list[tuple[int, int]]:
    """Return (DP rank, rank in its engine) of every process that one host's command starts, as vLLM numbers them."""
    engine = int(flags.get("tensor-parallel-size", 1)) * int(flags.get("pipeline-parallel-size", 1))
    nodes, node = int(flags.get("nnodes", 1)), int(flags.get("node-rank", 0))
    if nodes > 1:
        share = engine // nodes
        return [(0, node * share + number) for number in range(share)]
    first, local = int(flags.get("data-parallel-start-rank", 0)), int(flags.get("data-parallel-size-local", 1))
    return [(first + replica, number) for replica in range(local) for number in range(engine)]


LABELS = [
    ("tp4", 1, "TP4", 4),
    ("tep", 1, "TP8+EP", 8),
    ("tep-hosts", 2, "TP16+EP", 8),
    ("tep-hosts", 4, "TP32+EP", 8),
    ("replicas", 1, "TP4+DP2+EP", 8),
    ("replicas", 3, "TP4+DP6+EP", 8),
    ("two-replicas", 1, "TP2+DP2+EP", 4),
    ("tep-replicas", 2, "TP8+DP2+EP", 8),
    ("stages", 2, "TP4+PP4", 8),
    ("stage-a-host", 3, "TP4+PP3", 4),
    ("spread", 2, "DP16+EP", 8),
    ("each-answers", 2, "DP16+EP", 8),
    ("dcp", 1, "TP8+EP+DCP2", 8),
]


@pytest.mark.parametrize(("strategy", "count", "label", "used"), LABELS)
def test_sizes_become_numbers_on_these_hosts(strategy: str, count: int, label: str, used: int) -> None:
    plan = planned(strategy, count)
    assert plan.label == label
    assert {host.gpus for host in plan.hosts.values()} == {used}
    assert any("stay idle" in warning for warning in plan.warnings) == (used < 8)


@pytest.mark.parametrize(("strategy", "count", "label", "used"), LABELS)
def test_commands_start_every_rank_once(strategy: str, count: int, label: str, used: int) -> None:
    plan = planned(strategy, count)
    flags = {host: engine_flags(plan, host) for host in plan.hosts}
    started = [rank for host in plan.hosts for rank in ranks_of(flags[host])]
    one = next(iter(flags.values()))
    engine = int(one.get("tensor-parallel-size", 1)) * int(one.get("pipeline-parallel-size", 1))
    replicas = int(one.get("data-parallel-size", 1))
    assert sorted(started) == [(dp, number) for dp in range(replicas) for number in range(engine)]
    assert all(len(ranks_of(mine)) == plan.hosts[host].gpus for host, mine in flags.items())
    hybrid = strategy == "each-answers"
    assert ["headless" in mine for mine in flags.values()] == [False] + [not hybrid] * (count - 1)
    assert {mine.get("enable-expert-parallel") for mine in flags.values()} == {"" if "EP" in label else None}


def test_an_engine_over_hosts_meets_at_the_head_and_the_firewall_lets_it() -> None:
    plan = planned("tep-hosts", 2)
    head, follower = (engine_flags(plan, host) for host in plan.hosts)
    assert head["distributed-executor-backend"] == "mp"
    assert (head["nnodes"], head["node-rank"], follower["node-rank"]) == ("2", "0", "1")
    assert head["master-addr"] == follower["master-addr"] == "198.51.100.1"
    assert "master_port" in {opening.name for opening in plan.head.firewall.openings}
    assert plan.head.dp_ranks == (0,)
    assert not [requirement for requirement in plan.release.requirements if requirement.startswith("ray")]


def test_the_recipe_names_the_executor_and_the_setting_wins() -> None:
    by_ray = planned("tep-hosts-ray", 2)
    assert [[p.name for p in host.processes] for host in by_ray.hosts.values()] == [["ray", "vllm"], ["ray"]]
    assert planned("tep-hosts-ray", 2, executor="mp").head.processes[0].name == "vllm"
    assert planned("tep-hosts", 2, executor="ray").head.processes[0].name == "ray"


def test_where_every_host_answers_the_guard_verify_and_clients_find_each() -> None:
    plan = planned("each-answers", 2, client_networks=["203.0.113.0/24"])
    head, other = plan.hosts.values()
    for number, flags in enumerate(engine_flags(plan, host) for host in plan.hosts):
        assert "data-parallel-hybrid-lb" in flags
        assert "headless" not in flags
        assert flags["data-parallel-start-rank"] == str(8 * number)
    assert other.role == "serving"
    assert [opening.first for opening in other.firewall.ports("clients")] == [8000]
    members = json.loads(head.files["/etc/muster/qwen3-235b/guard.json"].text)["members"]
    assert [(member["address"], member["port"]) for member in members] == [
        ("198.51.100.1", 8000),
        ("198.51.100.2", 8000),
    ]
    asked = [request(plan, host) for host in plan.hosts.values()]
    assert [(each["ranks"], each["first_rank"]) for each in asked] == [(8, 0), (8, 8)]
    checks = planned("each-answers", 2, supervisor="systemd").steps[-1].checks
    assert [check.host for check in checks] == list(plan.hosts)


@pytest.mark.parametrize(("strategy", "count"), [("each-answers", 1), ("replicas", 2)])
def test_hosts_that_would_answer_for_one_rank_are_refused(strategy: str, count: int) -> None:
    sized = QWEN.strategies[strategy].model_copy(
        update={"load_balancing": "hybrid", "sizes": Sizes(tp="host" if strategy == "replicas" else 1, dp="all")}
    )
    with pytest.raises(Refusal, match="every host answer for its own ranks"):
        lay_out(strategy, sized, build_topology(hosts(count, "H200", 8)))


def test_idle_gpus_are_neither_checked_nor_shown_to_the_engine() -> None:
    (host,) = planned("tp4", 1).hosts.values()
    config = host.files["/etc/muster/qwen3-235b/guard.json"].text
    assert '"gpus": 4' in config
    named = [*hosts(1, "H200")]
    named[0] = type(named[0])(**{**vars(named[0]), "devices": tuple("76543210")})
    (host,) = build_plan(QWEN, named, Settings(strategy="tp4")).hosts.values()
    assert host.devices == tuple("7654")


REFUSED = [
    ({"tp": 16}, 2, 8, "TP16 does not stay within a host of 8 GPUs", "tp: all"),
    ({"tp": "host"}, 2, 8, "1 engine of 8 GPUs for 2 hosts", "as many engines on each"),
    ({"tp": 4, "dp": 3}, 2, 8, "3 engines of 4 GPUs for 2 hosts", "as many engines on each"),
    ({"tp": 4, "dp": 4}, 1, 8, "4 engines of 4 GPUs on each host", "at most 8 GPUs"),
    ({"tp": "all", "dp": "all"}, 2, 8, "tp and dp both take all GPUs", "a number for one"),
    ({"tp": "all", "dp": 3}, 2, 8, "16 GPUs do not divide over 3", "a divisor"),
    ({"tp": 8, "pp": 3}, 2, 8, "TP8 x PP3 does not give each of 2 hosts", "a multiple"),
    ({"tp": 6, "pp": 4}, 2, 8, "TP6 x PP4 over 2 hosts takes 12 GPUs of each", "at most 8"),
    ({"tp": 8, "pp": 2, "dp": 2}, 2, 8, "DP2 with engines that span 2 hosts", "DP 1"),
    ({"tp": 4, "dp": "all", "dcp": 3}, 1, 8, "is 3 with TP4", "a divisor of 4"),
]


@pytest.mark.parametrize(("sizes", "count", "gpus", "found", "needed"), REFUSED)
def test_what_does_not_come_out_even_is_refused_with_the_numbers(
    sizes: dict[str, object], count: int, gpus: int, found: str, needed: str
) -> None:
    strategy = Strategy(about="x", sizes=Sizes.model_validate(sizes))
    with pytest.raises(Refusal) as caught:
        lay_out("mine", strategy, build_topology(hosts(count, "H200", gpus)))
    assert found in caught.value.found
    assert needed in f"{caught.value.needed} {caught.value.fix}"


SIZES = st.builds(
    Sizes,
    tp=st.one_of(st.sampled_from(["host", "all"]), st.integers(1, 16)),
    pp=st.one_of(st.just("hosts"), st.integers(1, 8)),
    dp=st.one_of(st.just("all"), st.integers(1, 8)),
    ep=st.booleans(),
    dcp=st.sampled_from([1, "tp", 2]),
)


def placed(layout: Layout) -> list[tuple[int, int]]:
    """Return host and GPU of every rank in the order DP, PP, TP."""
    return [divmod(rank, layout.host_gpus) for rank in range(layout.world_size)]


@given(SIZES, st.integers(1, 5), st.integers(1, 9))
def test_ranks_hosts_and_gpus_add_up_or_are_refused(sizes: Sizes, count: int, gpus: int) -> None:
    try:
        layout = lay_out("mine", Strategy(about="x", sizes=sizes), build_topology(hosts(count, "H200", gpus)))
    except Refusal:
        return
    assert layout.world_size == layout.host_gpus * count
    assert 0 < layout.host_gpus <= gpus
    assert layout.tp % layout.dcp == 0
    places = placed(layout)
    assert len(set(places)) == len(places)
    assert {host for host, _ in places} == set(range(count))
    engine = layout.tp * layout.pp
    spans = [{host for host, _ in places[first : first + engine]} for first in range(0, len(places), engine)]
    assert {len(span) for span in spans} == {layout.engine_hosts}
    if sizes.tp != "all":
        groups = [{host for host, _ in places[at : at + layout.tp]} for at in range(0, len(places), layout.tp)]
        assert all(len(group) == 1 for group in groups), "tensor parallel leaves NVLink"
    by_host = [sum(host == number for host, _ in places) for number in range(count)]
    assert len(set(by_host)) == 1
    if layout.dp > 1:
        assert layout.dp_local * count == layout.dp


@given(st.sampled_from(sorted(QWEN.strategies)), st.integers(1, 4), st.sampled_from([1, 2, 4, 6, 8]))
def test_a_plan_gives_every_command_its_share_or_says_why_not(strategy: str, count: int, gpus: int) -> None:
    try:
        plan = planned(strategy, count, gpus, executor="mp")
    except Refusal:
        return
    started = [rank for host in plan.hosts for rank in ranks_of(engine_flags(plan, host))]
    assert len(set(started)) == len(started)
    assert len(started) == sum(host.gpus for host in plan.hosts.values())
    answering = [rank for host in plan.hosts.values() for rank in host.dp_ranks]
    assert sorted(answering) == list(range(max(1, len(answering))))


def test_a_default_that_does_not_take_these_hosts_gives_way_to_one_that_does() -> None:
    name, notes = strategies.choose(QWEN, None, build_topology(hosts(2, "H200", 8)))
    assert name == "tep-hosts"
    assert "needs exactly 1 host" in notes[0]
