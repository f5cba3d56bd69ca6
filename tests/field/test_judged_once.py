"""PipelineRL#85, vllm#28572, gpud#1174, nccl#1562, huggingface_hub#4128: guard and preflight judge one host alike.

On real hosts of eight simulated GPUs, of which the group uses four.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.sandbox import Sandbox, simulated_gpus
from tests import standin
from tests.conftest import Boot
from tests.deploys.conftest import GROUP, HOSTS, GuardedTestbed
from tests.preflight import boxes

pytestmark = pytest.mark.sandbox

INVENTORY = """\
from muster.sandbox.as_inventory import hosts as _hosts
_four = [(name, {{**data, "gpus": 4}}) for name, data in _hosts({name!r})]
hosts = (_four, {settings!r})
"""
HARMLESS = [
    "NVRM: Xid (PCI:0000:00:07): 145, RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x0409a0c2 0x00000008 0x00000001)",
    "NVRM: Xid (PCI:0000:00:07): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",
]
FATAL = "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"


class FourOfEight(GuardedTestbed):
    inventory = INVENTORY


@pytest.fixture(scope="module")
def box(sandbox: Boot) -> Sandbox:
    return sandbox("eight-gpus", 2, gpus=8)


@pytest.fixture(scope="module")
def group(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FourOfEight]:
    there = FourOfEight(box, tmp_path_factory.mktemp("four"))
    there.clear()
    there.deploy()
    yield there
    there.clear()


def preflight(group: FourOfEight) -> boxes.Run:
    own = str(group.directory / "inventory.py")
    return boxes.check(group.box, GROUP, inventory=own)


def level(group: FourOfEight, check: str) -> str:
    return preflight(group).levels(check)["node1"]


def blocked(group: FourOfEight) -> str:
    members = group.status.get("members", [])
    return next((str(member.get("lacks", "")) for member in members if member["host"] == "node1"), "")


def has_lines(group: FourOfEight, *lines: str) -> None:
    gpus = group.box.gpus("node1")
    group.box.set_gpus("node1", {**gpus, "kernel_log": list(lines)})


def test_four_of_eight_gpus_serve(group: FourOfEight) -> None:
    assert group.answers()
    shown = group.sh("node1", f"cat /proc/$(pgrep -o -f ^{standin.PATH})/environ | tr '\\0' '\\n' | grep ^CUDA_VISIBLE")
    uuids = [one["uuid"] for one in group.box.gpus("node1")["gpus"][:4]]
    assert shown == f"CUDA_VISIBLE_DEVICES={','.join(uuids)}"
    run = preflight(group)
    assert run.levels("gpu.count") == dict.fromkeys(HOSTS, "ok")
    assert run.found("gpu.count", "node1") == "8, of which the group uses 0, 1, 2, 3"


def test_lines_that_the_driver_calls_harmless_stop_nothing(group: FourOfEight) -> None:
    before = group.status["generation"]
    has_lines(group, *HARMLESS)
    assert level(group, "gpu.xid") == "ok"
    group.deploy()
    assert group.answers()
    assert group.status["generation"] == before
    has_lines(group)


def test_a_fatal_line_of_a_switch_blocks_until_the_repair_and_no_longer(group: FourOfEight) -> None:
    has_lines(group, FATAL)
    group.wait("the guard blocks its host", lambda: "SXid" in blocked(group), 60)
    assert "fatal SXid: " in blocked(group)
    assert level(group, "gpu.xid") == "fail"
    refusal = group.refused()
    assert "gpu.xid on node1 failed; nothing was touched" in refusal.text
    # The line stays in the kernel's log, as it does on real hosts after a reset.
    group.done("resume")
    group.wait("the group serves again", group.answers, 60)
    assert level(group, "gpu.xid") == "ok"
    group.deploy()


def test_a_fabric_in_progress_is_waited_for_with_that_word(group: FourOfEight) -> None:
    healthy = group.box.gpus("node1")
    group.box.set_gpus("node1", simulated_gpus.fabric(healthy, 1, "In Progress", "N/A"))
    try:
        group.sh("node1", f"systemctl restart muster-{GROUP}.service")
        group.wait("the guard says so", lambda: "In Progress" in blocked(group), 60)
        assert level(group, "fabric_manager.state") == "fail"
        assert not group.answers()
    finally:
        group.box.set_gpus("node1", healthy)
    group.wait("the group serves", group.answers, 60)


def test_a_gpu_that_the_group_does_not_use_is_no_business_of_its(group: FourOfEight, tmp_path: Path) -> None:
    healthy = group.box.gpus("node1")
    hurt = simulated_gpus.process(simulated_gpus.xid(healthy, 6, 79), 7, pid=4242, name="python3", used_mib=9)
    group.box.set_gpus("node1", simulated_gpus.ecc_errors(hurt, 5))
    try:
        run = preflight(group)
        assert {check for check, host in run.bad() if host == "node1" and check.startswith("gpu.")} == {"gpu.xid"}
        assert run.levels("gpu.xid")["node1"] == "warn"
        assert group.answers()
    finally:
        group.box.set_gpus("node1", healthy)
    assert json.loads(json.dumps(run.data))


class OtherFour(FourOfEight):
    inventory = INVENTORY.replace('"gpus": 4', '"gpus": 4, "gpu_devices": [4, 5, 6, 7]')


def test_two_groups_share_the_hosts(group: FourOfEight, tmp_path: Path) -> None:
    other = OtherFour(group.box, tmp_path)
    healthy = group.box.gpus("node1")
    pid = int(group.sh("node1", f"pgrep -o -f ^{standin.PATH}"))
    # The first group's engine holds one of its GPUs.
    group.box.set_gpus("node1", simulated_gpus.process(healthy, 0, pid=pid, name="VLLM::Worker", used_mib=9))
    ports = {"port": 8001, "rpc_port": 29551, "master_port": 29502, "control_port": 29601}
    before = group.status["generation"]
    try:
        other.deploy(group="second", **ports)
        shown = group.sh(
            "node1",
            "pgrep -P $(systemctl show -P MainPID muster-second.service) -f standin | head -1"
            " | xargs -I% cat /proc/%/environ | tr '\\0' '\\n' | grep ^CUDA_VISIBLE",
        )
        uuids = [one["uuid"] for one in healthy["gpus"][4:]]
        assert shown == f"CUDA_VISIBLE_DEVICES={','.join(uuids)}"
        assert group.answers()
        assert group.status["generation"] == before
        assert group.sh("node0", "curl -s -o /dev/null -w %{http_code} http://127.0.0.1:8001/health") == "200"
    finally:
        group.box.set_gpus("node1", healthy)
        for host in HOSTS:
            group.sh(host, "systemctl disable --now muster-second.service; rm -rf /etc/muster/second; true")
