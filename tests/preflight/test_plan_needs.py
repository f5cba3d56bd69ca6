"""What a plan needs of its hosts."""

from __future__ import annotations

import pytest

from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.preflight import plan_needs
from muster.preflight.needs import Needs
from muster.spec import recipe
from muster.spec.settings import Settings
from tests.sample_plans import hosts, plan

GB = 1e9


def needs_of(made: Plan, rank: int = 0, **settings: object) -> Needs:
    return plan_needs.needs_of_plan(made, Settings(**settings))[list(made.hosts)[rank]]


def test_hosts_of_an_inventory_need_no_recipe() -> None:
    (spec,) = hosts(1, "H20", 8)
    needs = plan_needs.needs_of_host(spec, Settings(rdma="off"), 1)
    assert (needs.product, needs.gpus, needs.memory_mib) == ("NVIDIA H20", 8, 97871)
    assert (needs.address, needs.interface, needs.rdma) == ("198.51.100.1", "eth1", "off")
    assert needs.ports == ()
    assert needs.release is None


def test_plan_names_ports_units_release_and_files() -> None:
    made = plan("kimi-k2-instruct", 2, "H200")
    head, other = needs_of(made), needs_of(made, 1)
    assert {port.number: port.what for port in head.ports} == {
        8000: "port",
        29550: "rpc_port",
        29600: "control_port",
    }
    assert other.ports == ()
    assert head.release == made.release.path
    assert set(head.files) == set(made.hosts["h200-0"].files)
    assert set(made.hosts["h200-0"].units) <= {*head.units}
    assert head.model["repository"] == "moonshotai/Kimi-K2-Instruct"
    assert head.hosts == 2


def test_memory_is_the_plan_s() -> None:
    made = plan("kimi-k2-instruct", 2, "H200")
    needs = needs_of(made)
    assert made.memory is not None
    assert needs.gpu_bytes == made.memory.used + int(made.memory.token_bytes * made.memory.needed_tokens)
    assert needs.utilization == made.memory.utilization


def test_disk_is_that_of_the_whole_model_whatever_its_recipe_is_called() -> None:
    own = recipe.load("kimi-k2-instruct").model_copy(update={"name": "mine"})
    made = build_plan(own, hosts(2, "H200"), Settings())
    weights = needs_of(made).paths[-1]
    # 1,029 GB on disk, as published with the model.
    assert weights.bytes == pytest.approx(1029 * GB, rel=0.01)
    assert weights.held == "/var/lib/muster/hf/hub/models--moonshotai--Kimi-K2-Instruct"


def test_a_model_that_is_already_there_takes_no_more_disk() -> None:
    local = plan("kimi-k2-instruct", 2, "H200", model="/data/k2")
    assert needs_of(local, model="/data/k2").paths[-1].bytes == 0
    assert needs_of(local, model="/data/k2").model == {}


def test_processors_need_no_driver() -> None:
    made = plan("kimi-k2-instruct", 2, "H200", torch_backend="cpu")
    assert needs_of(made, torch_backend="cpu").torch_backend == "cpu"


def test_staged_weights_need_room_where_they_are_staged() -> None:
    path = "/data/weights/moonshotai--Kimi-K2-Instruct/" + "a" * 40
    staged = plan("kimi-k2-instruct", 2, "H200", model=path)
    need = needs_of(staged, model=path, weights_source="hub", weights_root="/data/weights").paths[-1]
    assert (need.path, need.held) == ("/data/weights", path)
    assert need.bytes == pytest.approx(1029 * GB, rel=0.01)


def test_nobody_chooses_a_build_for_an_engine_of_one_s_own() -> None:
    mine = plan("kimi-k2-instruct", 2, "H200", engine_path="/opt/mine")
    assert needs_of(mine, engine_path="/opt/mine").torch_backend is None
    assumed = needs_of(plan("kimi-k2-instruct", 2, "H200"))
    assert (assumed.torch_backend, assumed.cuda_variant) == ("auto", "cu130")


def test_units_of_the_former_group_are_no_strangers() -> None:
    needs = needs_of(plan("kimi-k2-instruct", 2, "H200"), former_group="older")
    theirs = "0::/system.slice/muster-older.service"
    assert needs.in_own_unit(theirs)
    groups = {"older": {"units": ["muster-older.service"]}}
    assert plan_needs.without_others(needs, {"kimi-k2-instruct", "older"}, groups).in_own_unit(theirs)
    assert not plan_needs.without_others(needs, {"kimi-k2-instruct", None}, groups).in_own_unit(theirs)


def test_units_of_every_way_to_run_the_group_are_its_own() -> None:
    needs = needs_of(plan("kimi-k2-instruct", 2, "H200"))
    assert needs.in_own_unit("0::/system.slice/muster-kimi-k2-instruct-ray.service")
    assert needs.in_own_unit("0::/system.slice/muster-kimi-k2-instruct.service/engine")
    assert not needs.in_own_unit("0::/system.slice/muster-kimi-k2-instruct-2.service")
    assert not needs.in_own_unit("0::/system.slice/muster-other-muster-kimi-k2-instruct.service")
