"""The preflight on sixteen real hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from muster.sandbox.box import Sandbox

from . import boxes

pytestmark = pytest.mark.sandbox
COUNT = 16


@pytest.fixture(scope="module")
def sixteen() -> Iterator[Sandbox]:
    made = Sandbox.up("preflight-sixteen", COUNT, gpu="H200", gpus=1)
    try:
        yield made
    finally:
        made.down()


def test_unreachable_host_among_sixteen_is_a_row(sixteen: Sandbox) -> None:
    sixteen.cut("node7")
    try:
        run = boxes.check(sixteen)
        table = boxes.muster(sixteen, "preflight", "--no-pairs")
    finally:
        sixteen.heal("node7")
    assert run.status == 1
    assert run.bad() == {("host.reached", "node7")}
    assert len(run.data["hosts"]) == COUNT
    assert "15 hosts: node[0-6], node[8-15]" in table.out
    assert "FAIL   host.reached  node7" in table.out
    assert "Traceback" not in table.err


def test_all_pairs_of_sixteen_meet(sixteen: Sandbox) -> None:
    run = boxes.muster(sixteen, "preflight", "--waive", "rdma.link", "--format", "json")
    assert set(run.levels("fabric.reach").values()) == {"ok"}
    assert {run.found("fabric.reach", f"node{i}") for i in range(COUNT)} == {"reaches 15 of 15"}
    assert any(note.startswith("slowest pair: ") for note in run.data["notes"])
