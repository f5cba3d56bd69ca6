"""nccl-tests#219, nccl#286: two hosts name their RDMA devices and interfaces differently, and serve together."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.plan.make import build_plan
from muster.preflight import allreduce, plan_needs
from muster.spec import inventory, recipe

HOSTS = """hosts = (
    [("gpu-a", {"ssh_hostname": "192.0.2.11", "fabric_address": "198.51.100.11", "fabric_interface": "bond0",
                "extra_env": %s}),
     ("gpu-b", {"ssh_hostname": "192.0.2.12", "fabric_address": "198.51.100.12", "fabric_interface": "enp86s0f0np0",
                "extra_env": {"NCCL_IB_HCA": "mlx5_4,mlx5_7", "NCCL_IB_GID_INDEX": "5", "NCCL_DEBUG": "WARN"}})],
    {"gpu": "H200", "gpus": 8, "ssh_user": "root", "revision": "0123456789abcdef0123456789abcdef01234567"},
)
"""


def fleet(tmp_path: Path, first: str) -> inventory.Fleet:
    file = tmp_path / "mine.py"
    file.write_text(HOSTS % first)
    return inventory.from_path(str(file))


def test_each_host_gets_its_own_devices_and_the_rest_is_shared(tmp_path: Path) -> None:
    given = fleet(tmp_path, '{"NCCL_IB_HCA": "mlx5_0,mlx5_3", "NCCL_IB_GID_INDEX": "3", "NCCL_DEBUG": "WARN"}')
    assert given.settings.extra_env == {"NCCL_DEBUG": "WARN"}
    plan = build_plan(recipe.load("kimi-k2-instruct"), given.hosts, given.settings)
    for name, devices, index, interface in (
        ("gpu-a", "mlx5_0,mlx5_3", "3", "bond0"),
        ("gpu-b", "mlx5_4,mlx5_7", "5", "enp86s0f0np0"),
    ):
        for process in plan.hosts[name].processes:
            assert process.env["NCCL_IB_HCA"] == devices
            assert process.env["NCCL_IB_GID_INDEX"] == index
            assert process.env["NCCL_DEBUG"] == "WARN"
            assert process.env["NCCL_SOCKET_IFNAME"] == f"={interface}"
            assert process.env["GLOO_SOCKET_IFNAME"] == interface
    asked = allreduce.requests(plan_needs.needs_of_plan(plan, given.settings), port=29650, env={})
    assert asked["gpu-b"]["env"]["NCCL_IB_HCA"] == "mlx5_4,mlx5_7"


def test_anything_else_still_has_to_be_one_value_for_the_group(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="setting 'extra_env' is"):
        fleet(tmp_path, '{"NCCL_IB_HCA": "mlx5_0,mlx5_3", "NCCL_DEBUG": "INFO"}')


def test_a_value_of_one_host_is_held_to_the_rules_of_all(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="gpu-a"):
        fleet(tmp_path, '{"NCCL_IB_HCA": "mlx5_0\\nLD_PRELOAD=/x", "NCCL_DEBUG": "WARN"}')
