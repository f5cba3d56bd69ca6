"""Several groups in one plan: each is what it would be alone, and nothing of a host is in two of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.plan import prepare
from muster.plan.fleet import FleetPlan, plan_fleet, require_apart
from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.spec import recipe
from muster.spec.host import HostSpec
from muster.spec.inventory import Fleet
from muster.spec.settings import Settings
from tests.faults.edge_matrix import by_key

_recipe = cache(recipe.load)


def host(number: int, gpus: int = 8, devices: tuple[str, ...] = ()) -> HostSpec:
    return HostSpec(f"gpu-{number}", f"198.51.100.{number + 1}", "eth1", "H200", gpus, devices)


def group(name: str, *hosts: HostSpec, recipe: str = "gpt-oss-20b", **given: object) -> Fleet:
    return Fleet(name, hosts, Settings(recipe=recipe, group=name.replace("_", "-"), **given), group=name)


@st.composite
def claims(draw: st.DrawFn) -> dict[str, Plan]:
    """Plans of groups that divide hosts between them, or claim too much."""
    plans: dict[str, Plan] = {}
    for number in range(draw(st.integers(1, 5))):
        first, base = draw(st.integers(0, 2)), draw(st.integers(0, 3))
        recipe, lots, count = draw(
            st.sampled_from(
                [
                    ("gpt-oss-20b", [("0",), ("1",), ("5",)], 1),
                    ("llama-3-3-70b-instruct", [(), ("0", "1", "2", "3"), ("4", "5", "6", "7")], 1),
                    ("kimi-k2-instruct", [()], 2),
                ]
            )
        )
        lot = draw(st.sampled_from(lots))
        plans[f"g{number}"] = build_plan(
            _recipe(recipe),
            [host(first + each, len(lot) or 8, lot) for each in range(count)],
            Settings(
                group=f"g{number}",
                port=8000 + base,
                control_port=29600 + base,
                rpc_port=29550 + base,
                master_port=29501 + base,
            ),
        )
    return plans


@settings(max_examples=40, deadline=None)
@given(claims(), st.integers(1, 4))
def test_no_gpu_and_no_port_of_a_host_is_in_two_groups(plans: dict[str, Plan], parallel: int) -> None:
    gpus = Counter(
        (name, gpu) for plan in plans.values() for name, each in plan.hosts.items() for gpu in each.gpu_names
    )
    ports = Counter(
        (name, port)
        for plan in plans.values()
        for name, each in plan.hosts.items()
        for opening in each.firewall.openings
        for port in range(opening.first, opening.last + 1)
    )
    apart = max((*gpus.values(), *ports.values())) == 1
    if not apart:
        with pytest.raises(Refusal, match="both"):
            require_apart(plans)
        return
    require_apart(plans)
    rounds = FleetPlan(plans).rounds(parallel)
    assert [name for each in rounds for name in each] == list(plans), "in the order of the inventory"
    models = {name: plan.served_model_name for name, plan in plans.items()}
    for model in set(models.values()):
        serving = {name for name in plans if models[name] == model}
        assert len(serving) == 1 or all(not serving <= set(each) for each in rounds), "a model is served by somebody"
    assert all(len(each) <= parallel for each in rounds)
    for each in rounds:
        hosts = [name for one in each for name in plans[one].hosts]
        assert len(hosts) == len(set(hosts)), "no host is changed for two groups at once"


def test_a_plan_is_what_the_group_would_have_alone() -> None:
    first, second = host(0, 2, ("0", "1")), host(0, 2, ("2", "3"))
    groups = {"a": group("a", first), "b": group("b", second, port=8001, control_port=29601)}
    fleet = plan_fleet(groups)
    assert fleet.plans["a"] == prepare.plan_for("gpt-oss-20b", Fleet("alone", (first,), Settings(group="a")))
    ports = Settings(group="b", port=8001, control_port=29601)
    assert fleet.plans["b"] == prepare.plan_for("gpt-oss-20b", Fleet("alone", (second,), ports))
    assert list(fleet.shared) == ["gpu-0"]


def refused(groups: dict[str, Fleet]) -> str:
    with pytest.raises(Refusal) as found:
        plan_fleet(groups)
    return str(found.value)


def test_one_host_claimed_twice_is_refused_with_both_names_and_what_to_set() -> None:
    small = {"recipe": "llama-3-3-70b-instruct"}
    text = refused({"kimi_a": group("kimi_a", host(0), **small), "chat": group("chat", host(0), **small)})
    assert f"gpu-0: kimi-a and chat {by_key('gpus-twice').refusal} 0, 1, 2, 3, 4, 5, 6, 7" in text
    assert f"gpu-0: kimi-a and chat {by_key('ports-twice').refusal} 8000 (port, port)" in text
    assert "gpus = 4 and gpu_devices = [0, 1, 2, 3] in group_data/kimi_a.py" in text
    assert "gpus = 4 and gpu_devices = [4, 5, 6, 7] in group_data/chat.py" in text
    assert "port = 8001 in group_data/chat.py" in text
    assert "control_port = 29601 in group_data/chat.py" in text


def test_what_a_refusal_says_to_set_is_enough() -> None:
    small = {"recipe": "llama-3-3-70b-instruct"}
    divided = {
        "kimi_a": group("kimi_a", host(0, 4, ("0", "1", "2", "3")), **small),
        "chat": group("chat", host(0, 4, ("4", "5", "6", "7")), port=8001, control_port=29601, **small),
    }
    assert list(plan_fleet(divided).plans) == ["kimi_a", "chat"]


def test_an_index_and_a_uuid_may_be_one_gpu() -> None:
    by_uuid = host(0, 1, ("GPU-11111111-2222-3333-4444-555555555555",))
    text = refused({"a": group("a", host(0, 1)), "b": group("b", by_uuid, port=8001, control_port=29601)})
    assert "a and b name GPUs differently" in text


def test_two_groups_of_one_name_are_refused() -> None:
    again = replace(group("a", host(1)), group="b")
    assert "a and b are both called a" in refused({"a": group("a", host(0)), "b": again})


def test_one_machine_has_one_name() -> None:
    alias = replace(host(0), name="other")
    text = refused({"a": group("a", host(0, 1)), "b": group("b", alias)})
    assert "gpu-0 of a and other of b have one address, 198.51.100.1" in text


def test_what_is_wrong_with_every_group_is_said_at_once() -> None:
    text = refused(
        {
            "a": group("a", host(0), strategy="nonsense"),
            "b": group("b", host(1)),
            "c": group("c", host(2), recipe="nothing-like-it"),
        }
    )
    assert text.startswith("a: ")
    assert "nonsense" in text
    assert "c: unknown recipe 'nothing-like-it'" in text


def test_groups_that_share_a_host_are_changed_one_after_the_other() -> None:
    lots = [("0",), ("1",), ("2",)]
    groups = {
        name: group(name, host(number, 1, lot), port=8000 + at, control_port=29600 + at)
        for at, (name, number, lot) in enumerate(zip("abc", (0, 0, 1), lots, strict=True))
    }
    fleet: FleetPlan = plan_fleet(groups)
    assert fleet.rounds() == [("a",), ("b",), ("c",)]
    assert fleet.rounds(3) == [("a",), ("b", "c")]
    assert fleet.rounds(3, ["b", "c"]) == [("b", "c")]
    assert fleet.rounds(1, None, ["b", "c"]) == [("b", "c"), ("a",)]
