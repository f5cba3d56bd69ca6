"""Which hosts are to measure vLLM's loaders: those without a record of this release and layout that is young enough."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muster.on_host import kept_rate
from muster.spec.inventory import Fleet
from muster.spec.settings import Settings
from muster.weights import loader_requests
from tests import sample_plans

HOSTS = tuple(sample_plans.hosts(2, "H200"))
FIRST, SECOND = (host.name for host in HOSTS)
GIVEN: dict[str, Any] = {"model": "/srv/m", "offline": True, "strategy": "dp-ep"}
PLAN = sample_plans.plan("kimi-k2-instruct", 2, "H200", **GIVEN)
assert PLAN.loaders is not None
KEPT = {"engine": PLAN.release.id, "ranks": PLAN.loaders.ranks.key, "age": 60, "loaders": {}}


def asked(probes: dict[str, Any], plans: Any = (PLAN,), **settings: Any) -> dict[str, dict[str, Any]]:
    fleet = Fleet("two", HOSTS, Settings(**{**GIVEN, **settings}))
    found = loader_requests.of(fleet, plans, {host: {"loaders": kept} for host, kept in probes.items()}, "/srv/m", "d1")
    json.dumps(found)  # it travels
    return found


def test_each_host_is_asked_about_its_own_ranks() -> None:
    env = {"NCCL_IB_HCA": "mlx5", "VLLM_LOGGING_LEVEL": "DEBUG"}
    found = asked({FIRST: None, SECOND: None}, extra_env=env)
    assert list(found) == [FIRST, SECOND]
    ranks = [found[name].pop("load") for name in (FIRST, SECOND)]
    assert [each["experts"]["first"] for each in ranks] == [0, 8]
    assert {each["seconds"] for each in ranks} == {loader_requests.SECONDS}
    assert found[FIRST] == found[SECOND]
    one = found[FIRST]
    assert "def main(request: Json) -> Json:" in one.pop("program")
    assert one == {
        "directory": "/srv/m",
        "manifest": "d1",
        "engines": [(PLAN.release.id, PLAN.release.path)],
        "key": KEPT["ranks"],
        "names": ["instanttensor", "fastsafetensors", "runai_streamer"],
        "env": {"NCCL_IB_HCA": "mlx5"},
        "gpus": list(HOSTS[0].devices),
    }


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({}, False),
        ({"age": kept_rate.MAX_AGE}, False),
        ({"age": kept_rate.MAX_AGE + 1}, True),
        ({"engine": "vllm-0.1"}, True),
        ({"ranks": "8-8-8-0-1-0"}, True),
    ],
)
def test_who_has_a_fresh_record_is_not_asked(change: dict[str, Any], again: bool) -> None:
    found = asked({FIRST: {**KEPT, **change}, SECOND: None})
    assert list(found) == [FIRST] * again + [SECOND]


def test_a_host_that_is_not_of_this_run_is_not_asked() -> None:
    assert list(asked({SECOND: None})) == [SECOND]


def test_every_release_that_hosts_may_have_counts() -> None:
    other = sample_plans.plan("kimi-k2-instruct", 2, "H200", vllm_version="0.32.0", **GIVEN)
    plans = (PLAN, other)
    found = asked({FIRST: {**KEPT, "engine": other.release.id}, SECOND: None}, plans)
    assert list(found) == [SECOND]
    assert [name for name, _ in found[SECOND]["engines"]] == [PLAN.release.id, other.release.id]


def test_where_nothing_is_chosen_nobody_is_asked() -> None:
    assert asked({FIRST: None}, ()) == {}
    auto = sample_plans.plan("kimi-k2-instruct", 2, "H200", weights={"loader": "auto"}, **GIVEN)
    assert asked({FIRST: None}, (auto,)) == {}
