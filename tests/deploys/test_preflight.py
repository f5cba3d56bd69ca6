"""A deploy looks at its hosts first: whatever is wrong with one, it stops, and the group that serves is untouched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muster.sandbox import simulated_gpus
from muster.sandbox.names import INTERFACE
from tests import planted_python
from tests.deploys.conftest import HOSTS, UNIT, Testbed

pytestmark = pytest.mark.sandbox


Fault = Callable[[dict[str, Any]], dict[str, Any]]
FAULTS: dict[str, tuple[Fault, str]] = {
    "a GPU missing": (lambda g: simulated_gpus.missing(g, 0), "gpu.count"),
    # The stand-in's torch is one for CUDA 13.
    "driver 535": (lambda g: simulated_gpus.driver(g, "535.183.01"), "engine.cuda"),
    "Fabric Manager one patch off": (
        lambda g: simulated_gpus.fabric_manager(g, "580.159.03"),
        "fabric_manager.version",
    ),
    "MIG on": (lambda g: simulated_gpus.mig(g, 0), "gpu.mig"),
    "one uncorrected ECC error": (lambda g: simulated_gpus.ecc_errors(g, 0), "gpu.ecc_errors"),
    "Xid 79": (lambda g: simulated_gpus.xid(g, 0, 79), "gpu.xid"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_gpus_stops_a_change_before_anything_is_touched(untouched: Testbed, name: str) -> None:
    fault, check = FAULTS[name]
    untouched.box.set_gpus("node1", fault(untouched.box.gpus("node1")))
    ran = untouched.refused(max_num_seqs=17)
    assert f"FAIL   {check}  node1" in ran.err
    assert f"{check} on node1" in ran.err
    assert "nothing was touched" in ran.err
    assert "Starting operation" not in ran.err
    assert ran.sessions == dict.fromkeys(HOSTS, 1), "the bar is 6"


def test_an_mtu_that_differs(untouched: Testbed) -> None:
    untouched.box.in_network("node1", ["ip", "link", "set", INTERFACE, "mtu", "9000"])
    try:
        ran = untouched.refused(max_num_seqs=17)
    finally:
        untouched.box.in_network("node1", ["ip", "link", "set", INTERFACE, "mtu", "1500"])
    assert "FAIL   fabric.mtu  node0" in ran.err


def test_a_disk_without_room_for_the_weights(untouched: Testbed) -> None:
    untouched.sh("node1", "mkdir -p /mnt/small && mount -t tmpfs -o size=1m small /mnt/small")
    try:
        ran = untouched.refused(hf_home="/mnt/small/hf")
    finally:
        untouched.sh("node1", "umount /mnt/small")
    assert "FAIL   host.disk  node1" in ran.err
    assert "1 MiB free on /mnt/small" in ran.err


def test_a_clock_an_hour_off(untouched: Testbed) -> None:
    with planted_python.planted(untouched.box, "node1", planted_python.AN_HOUR_AHEAD):
        ran = untouched.refused(max_num_seqs=17)
    assert "FAIL   host.clock  node1" in ran.err


def test_a_waived_check_is_shown_and_stops_nothing(untouched: Testbed) -> None:
    untouched.box.set_gpus("node1", simulated_gpus.mig(untouched.box.gpus("node1"), 0))
    ran = untouched.deploy("--json", preflight_waive=["gpu.mig"])
    assert ran.results["totals"]["success"] == 0
    assert "waived by preflight_waive: gpu.mig" in ran.err
    assert "waived gpu.mig  node1" in ran.err


def test_what_the_group_itself_holds_is_not_foreign_and_what_another_holds_is(untouched: Testbed) -> None:
    pid = int(untouched.sh("node1", f"systemctl show --value --property=MainPID {UNIT}"))
    healthy = untouched.box.gpus("node1")
    untouched.box.set_gpus("node1", simulated_gpus.process(healthy, 0, pid=pid, name="vllm", used_mib=120_000))
    assert untouched.deploy("--json").results["totals"]["success"] == 0
    untouched.box.set_gpus("node1", simulated_gpus.process(healthy, 0, pid=1, name="someone", used_mib=120_000))
    ran = untouched.refused()
    assert "FAIL   gpu.processes  node1" in ran.err
    assert "someone (pid 1)" in ran.err


def test_hosts_that_do_not_reach_each_other_are_found_before_the_first_start(testbed: Testbed) -> None:
    before = {name: testbed.files(name) for name in HOSTS}
    peer = f"{testbed.box.hosts[0].address}/32"
    testbed.box.in_network("node1", ["ip", "route", "add", "unreachable", peer])
    try:
        ran = testbed.refused()
    finally:
        testbed.box.in_network("node1", ["ip", "route", "del", "unreachable", peer])
    assert "FAIL   fabric.reach  node0" in ran.err
    assert "FAIL   fabric.reach  node1" in ran.err
    assert ran.sessions == dict.fromkeys(HOSTS, 2), "one look, one meeting"
    assert {name: testbed.files(name) for name in HOSTS} == before


def test_a_switch_that_carries_less_than_the_interfaces_say(testbed: Testbed) -> None:
    for name in HOSTS:
        testbed.box.in_network(name, ["ip", "link", "set", INTERFACE, "mtu", "9000"])
    try:
        ran = testbed.refused()
    finally:
        for name in HOSTS:
            testbed.box.in_network(name, ["ip", "link", "set", INTERFACE, "mtu", "1500"])
    assert "FAIL   fabric.mtu  node0" in ran.err
    assert "9000 bytes to node1" in ran.err


def test_drift_is_none_after_a_deploy_and_names_what_was_changed_by_hand(untouched: Testbed) -> None:
    none = untouched.muster("drift")
    assert (none.returncode, "0 warned" in none.stdout) == (0, True), none.stdout + none.stderr
    path = "/etc/muster/kimi-k2-instruct/vllm.env"
    untouched.sh("node1", f"cp -p {path} /root/kept && echo '# mine' >>{path}")
    try:
        found = untouched.muster("drift")
    finally:
        untouched.sh("node1", f"cp -p /root/kept {path}")
    assert found.returncode == 1
    assert "warn   drift.files  node1" in found.stdout
    assert f"{path} differs" in " ".join(found.stdout.split())
    assert "Traceback" not in found.stderr
