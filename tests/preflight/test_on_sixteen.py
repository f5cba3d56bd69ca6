"""The preflight on sixteen real hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.sandbox import tiny_model
from muster.sandbox.box import Sandbox
from tests import standin

from . import boxes

pytestmark = pytest.mark.sandbox
COUNT = 16
RUNNING = "a-rank.service"


def lives(box: Sandbox) -> dict[str, str]:
    asked = ["systemctl", "show", RUNNING, "-p", "InvocationID,MainPID,ActiveState,NRestarts"]
    return {host.name: box.exec(host.name, asked).stdout for host in box.hosts}


@pytest.fixture(scope="module")
def sixteen() -> Iterator[Sandbox]:
    made = Sandbox.up("preflight-sixteen", COUNT, gpu="H200", gpus=1)
    try:
        for host in made.hosts:
            standin.place(made.tree(host.name))
            made.exec(host.name, ["systemd-run", f"--unit={RUNNING}", "sleep", "infinity"])
        yield made
    finally:
        made.down()


@pytest.mark.nightly
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


def test_a_deploy_stops_for_the_one_that_is_unreachable_and_touches_none(sixteen: Sandbox, tmp_path: Path) -> None:
    settings = {
        "strategy": "dp-ep",
        "engine_path": standin.PATH,
        "allow_oversubscription": True,
        "allow_unpinned_code": True,
        "expert_parallel": False,
        "model_shape": dict(tiny_model.SHAPE),
        "rdma": "off",
    }
    inventory = tmp_path / "inventory.py"
    inventory.write_text(f"from muster.sandbox.as_inventory import hosts as _hosts\nhosts = (_hosts(), {settings!r})\n")
    before = lives(sixteen)
    sixteen.cut("node7")
    try:
        run = boxes.pyinfra(sixteen, "deploys/kimi_k2_instruct.py", inventory=str(inventory))
    finally:
        sixteen.heal("node7")
    assert run.status != 0
    assert "FAIL   host.reached  node7" in run.err
    assert "host.reached on node7 failed; nothing was touched" in run.err
    assert "Starting operation" not in run.err
    assert lives(sixteen) == before
    there = [sixteen.exec(host.name, ["sh", "-c", "ls -d /etc/muster || true"]).stdout for host in sixteen.hosts]
    assert set(there) == {""}


def test_all_pairs_of_sixteen_meet(sixteen: Sandbox) -> None:
    run = boxes.muster(sixteen, "preflight", "--waive", "rdma.link", "--format", "json")
    assert set(run.levels("fabric.reach").values()) == {"ok"}
    assert {run.found("fabric.reach", f"node{i}") for i in range(COUNT)} == {"reaches 15 of 15"}
    assert any(note.startswith("slowest pair: ") for note in run.data["notes"])
