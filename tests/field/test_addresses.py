"""vllm#18986, vllm#42149, nccl#286: addresses that no rank can use are refused in the plan, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.plan.make import build_plan
from muster.spec import inventory, recipe

HOSTS = """hosts = (
    [("gpu-a", {"ssh_hostname": "192.0.2.11", "fabric_address": "%s"}),
     ("gpu-b", {"ssh_hostname": "192.0.2.12", "fabric_address": "198.51.100.12"})],
    {"gpu": "H200", "gpus": 8, "fabric_interface": "eth1", "ssh_user": "root",
     "revision": "0123456789abcdef0123456789abcdef01234567"},
)
"""


@pytest.mark.parametrize(
    ("address", "found", "fix"),
    [
        ("2001:db8:cd51::11", "gpu-a: fabric address 2001:db8:cd51::11 is an IPv6 address", "IPv4 address"),
        ("127.0.0.1", "gpu-a: fabric address 127.0.0.1 is none that other hosts can reach", "fabric_address"),
        (
            "0.0.0.0",
            "gpu-a has no address of its own: '0.0.0.0' is not",
            "fabric_address",
        ),
        (
            "224.0.0.1",
            "gpu-a has no address of its own: '224.0.0.1' is not",
            "fabric_address",
        ),
    ],
)
def test_the_address_is_named_with_its_host(tmp_path: Path, address: str, found: str, fix: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(HOSTS % address)

    def planned() -> None:
        fleet = inventory.from_path(str(file))
        build_plan(recipe.load("kimi-k2-instruct"), fleet.hosts, fleet.settings)

    with pytest.raises(Refusal) as refused:
        planned()
    assert found in str(refused.value)
    assert fix in str(refused.value)
