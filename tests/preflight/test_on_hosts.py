"""The preflight on real hosts: every fault is seen there, and what runs is untouched in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from muster.sandbox import simulated_gpus
from muster.sandbox.box import Sandbox
from muster.sandbox.names import INTERFACE
from tests import planted_python

from . import boxes

pytestmark = pytest.mark.sandbox

RUNNING = "a-rank.service"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """Two hosts of two GPUs, each with a unit that stands for a group's rank."""
    made = Sandbox.up("preflight-test", 2, gpu="H200", gpus=2)
    try:
        for host in ("node0", "node1"):
            made.exec(host, ["systemd-run", f"--unit={RUNNING}", "sleep", "infinity"])
        yield made
    finally:
        made.down()


@pytest.fixture(autouse=True)
def untouched(box: Sandbox) -> Iterator[None]:
    """Whatever a test does, the units on the hosts are not: same life, same configuration."""
    before = lives(box)
    yield
    assert lives(box) == before


def lives(box: Sandbox) -> dict[str, str]:
    asked = ["systemctl", "show", RUNNING, "-p", "InvocationID,MainPID,ActiveState,NRestarts"]
    return {host: box.exec(host, asked).stdout for host in ("node0", "node1")}


def test_healthy_hosts_pass_every_check(box: Sandbox) -> None:
    run = boxes.check(box)
    assert run.bad() == set()
    assert (run.status, run.data["level"]) == (0, "ok")
    assert run.data["notes"][0].startswith("engine build: cu130")


Fault = Callable[[dict[str, Any]], dict[str, Any]]
NO_ENGLISH = "Échec de NVIDIA-SMI : impossible de communiquer avec le pilote. 驱动程序\n"


def worn(g: dict[str, Any]) -> dict[str, Any]:
    """Return a host on which everything that is not the other faults has gone wrong at once."""
    g = simulated_gpus.fabric(g, 1, "In Progress", "N/A")
    g = simulated_gpus.with_value(g, 0, "product_name", "NVIDIA H20")
    g = simulated_gpus.with_value(g, 0, "fb_memory_usage/total", "97871 MiB")
    g = simulated_gpus.persistence_off(simulated_gpus.remap_pending(simulated_gpus.ecc_off(g, 0), 0), 0)
    g = simulated_gpus.process(simulated_gpus.slowed(g, 1, 0x40), 0, pid=4242, name="python3", used_mib=9)
    return simulated_gpus.xid(simulated_gpus.links_down(g, 0, *range(18)), 1, 63)


# The fault on node1; check, level and a part of what was found, for each check that sees it.
GPU_FAULTS: dict[str, tuple[Fault, list[tuple[str, str, str]]]] = {
    "no driver": (simulated_gpus.no_driver, [("driver.present", "fail", "couldn't communicate")]),
    "a tool that hangs": (
        lambda g: simulated_gpus.command(g, "nvidia-smi", hang_s=40),
        [("driver.present", "fail", "did not answer")],
    ),
    "another language": (
        lambda g: simulated_gpus.command(g, "nvidia-smi", exit=9, stdout=NO_ENGLISH),
        [("driver.present", "fail", "communiquer")],
    ),
    "no output": (lambda g: simulated_gpus.command(g, "nvidia-smi", exit=0), [("driver.present", "fail", "nothing")]),
    "gigantic output": (
        lambda g: simulated_gpus.command(g, "nvidia-smi", exit=0, stdout="x" * 600_000),
        [("driver.present", "fail", "too much")],
    ),
    "driver 515": (lambda g: simulated_gpus.driver(g, "515.65.01"), [("driver.version", "fail", "515.65.01")]),
    "driver 535": (
        lambda g: simulated_gpus.driver(g, "535.183.01"),
        [("driver.version", "ok", "535.183.01"), ("driver.build", "ok", "cu129"), ("parity.driver", "warn", "535.")],
    ),
    "Fabric Manager one patch off": (
        lambda g: simulated_gpus.fabric_manager(g, "580.159.03"),
        [("fabric_manager.version", "fail", "580.159.03")],
    ),
    "a GPU missing": (
        lambda g: simulated_gpus.missing(g, 1),
        [("gpu.count", "fail", "1; missing: GPU 1"), ("parity.count", "fail", "1")],
    ),
    "MIG on": (lambda g: simulated_gpus.mig(g, 1), [("gpu.mig", "fail", "Enabled (GPU 1)")]),
    "one uncorrected ECC error": (
        lambda g: simulated_gpus.ecc_errors(g, 1),
        [("gpu.ecc_errors", "fail", "1 on GPU 1")],
    ),
    "Xid 79": (lambda g: simulated_gpus.xid(g, 1, 79), [("gpu.xid", "fail", "Xid 79")]),
    "everything else": (
        worn,
        [
            ("fabric_manager.state", "fail", "In Progress"),
            ("gpu.product", "fail", "NVIDIA H20 (GPU 0)"),
            ("parity.product", "fail", "NVIDIA H20, NVIDIA H200"),
            ("gpu.memory", "fail", "97871 MiB (GPU 0)"),
            ("gpu.ecc_mode", "warn", "Disabled (GPU 0)"),
            ("gpu.remap", "warn", "pending on GPU 0"),
            ("gpu.persistence", "warn", "Disabled (GPU 0)"),
            ("gpu.throttle", "warn", "GPU 1: hardware thermal slowdown"),
            ("gpu.processes", "fail", "python3 (pid 4242)"),
            ("gpu.nvlink", "fail", "GPU 0: 0 of 18"),
            ("gpu.topology", "warn", "GPU 0 to 1: SYS"),
            ("gpu.xid", "warn", "Xid 63"),
        ],
    ),
}


@pytest.mark.parametrize("name", GPU_FAULTS)
def test_fault_of_a_gpu(box: Sandbox, name: str) -> None:
    fault, seen_by = GPU_FAULTS[name]
    with boxes.gpus(box, "node1", fault(box.gpus("node1"))):
        run = boxes.check(box)
    for check, level, found in seen_by:
        assert (check, run.levels(check)["node1"]) == (check, level)
        assert found in run.found(check, "node1")
    wrong = {check for check, level, _ in seen_by if level != "ok"}
    assert wrong <= {check for check, host in run.bad() if host == "node1"}
    assert {host for check, host in run.bad() if not check.startswith("parity.")} <= {"node1"}
    assert run.status == (1 if any(level == "fail" for _, level, _ in seen_by) else 3)
    if name == "driver 535":
        assert run.data["notes"][0] == "engine build: cu129 (CUDA 12.9), for driver 535.183.01 on node1"
        assert "cu129" in run.found("driver.build", "node0")


def test_fabric_manager_that_does_not_run(box: Sandbox) -> None:
    broken = simulated_gpus.fabric(box.gpus("node1"), 0, "In Progress", "N/A")
    unit = "nvidia-fabricmanager.service"
    with ExitStack() as stack:
        stack.enter_context(boxes.gpus(box, "node1", broken))
        stack.enter_context(boxes.inside(box, "node1", ["systemctl", "stop", unit], ["systemctl", "start", unit]))
        run = boxes.check(box)
    assert run.levels("fabric_manager.service") == {"node0": "ok", "node1": "fail"}


def test_missing_tools_fail_their_own_checks(box: Sandbox) -> None:
    tool = box.exec("node1", ["sh", "-c", "command -v nvidia-smi"]).stdout.strip()
    with boxes.inside(box, "node1", ["mv", tool, f"{tool}.away"], ["mv", f"{tool}.away", tool]):
        run = boxes.check(box)
    assert run.found("driver.present", "node1") == "nvidia-smi is not installed"
    assert {name.partition(".")[0] for name, host in run.bad() if host == "node1"} <= {"driver", "parity"}


def mounted(box: Sandbox, path: str, options: str) -> AbstractContextManager[None]:
    box.exec("node1", ["mkdir", "-p", path])
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]
    return boxes.inside(box, "node1", mount, ["umount", path])


def test_full_disk(box: Sandbox) -> None:
    with mounted(box, "/opt/muster", "size=64M"):
        run = boxes.check(box, "kimi-k2-instruct")
    assert run.levels("host.disk") == {"node0": "ok", "node1": "fail"}
    assert "64 MiB free on /opt/muster" in run.found("host.disk", "node1")


def test_noexec(box: Sandbox) -> None:
    with mounted(box, "/opt/muster", "noexec"):
        run = boxes.check(box)
    assert run.levels("host.noexec") == {"node0": "ok", "node1": "fail"}


def test_taken_port_and_by_whom(box: Sandbox) -> None:
    listen = "import socket, time; s = socket.create_server(('', 8000)); time.sleep(900)"
    start = ["systemd-run", "--unit=stranger", "python3", "-c", listen]
    with boxes.inside(box, "node0", start, ["systemctl", "stop", "stranger"]):
        run = boxes.check(box, "kimi-k2-instruct")
    assert run.levels("host.ports")["node0"] == "fail"
    assert "8000 (port) by python3, pid " in run.found("host.ports", "node0")


def test_small_shared_memory(box: Sandbox) -> None:
    remount = "mount -o remount,size={} /dev/shm"
    with boxes.inside(box, "node1", ["sh", "-c", remount.format("64M")], ["sh", "-c", remount.format("50%")]):
        run = boxes.check(box)
    assert run.levels("host.shm") == {"node0": "ok", "node1": "warn"}


def test_own_name_that_leads_nowhere(box: Sandbox) -> None:
    with boxes.inside(box, "node1", ["hostname", "nowhere"], ["hostname", "node1"]):
        run = boxes.check(box)
    assert run.levels("host.name") == {"node0": "ok", "node1": "warn"}


def inventory(path: Path, change: str) -> str:
    """Write an inventory of the sandbox with something changed in node1's data; group data stays the sandbox's."""
    file = path / "sandbox.py"
    file.write_text(
        f"from muster.sandbox.as_inventory import hosts as _hosts\nhosts = _hosts()\nhosts[1][1].update({change})\n"
    )
    return str(file)


def test_wrong_interface(box: Sandbox, tmp_path: Path) -> None:
    run = boxes.check(box, inventory=inventory(tmp_path, "fabric_interface='eth9'"))
    assert run.levels("fabric.address") == {"node0": "ok", "node1": "fail"}
    assert f"is on {INTERFACE}" in run.found("fabric.address", "node1")


def test_address_that_is_on_another_host(box: Sandbox, tmp_path: Path) -> None:
    run = boxes.check(box, inventory=inventory(tmp_path, "fabric_address='198.51.100.7'"))
    assert run.levels("fabric.address") == {"node0": "ok", "node1": "fail"}


def set_mtu(size: int) -> list[str]:
    return ["ip", "link", "set", INTERFACE, "mtu", str(size)]


def test_mtu_that_differs(box: Sandbox) -> None:
    with boxes.network(box, "node1", set_mtu(9000), set_mtu(1500)):
        run = boxes.check(box)
    assert run.levels("fabric.mtu") == {"node0": "fail", "node1": "ok"}
    assert run.found("fabric.mtu", "node0") == "1500"


def test_pairs_measure_and_a_small_mtu_on_the_way_is_found(box: Sandbox) -> None:
    words = ["--waive", "rdma.link", "--format", "json"]
    run = boxes.muster(box, "preflight", *words)
    assert set(run.levels("fabric.reach").values()) == {"ok"}
    assert set(run.levels("fabric.mtu").values()) == {"ok"}
    assert set(run.levels("fabric.round_trip")) == set(run.levels("fabric.throughput")) == {"node0", "node1"}
    assert run.data["notes"][1].startswith("slowest pair: node0 to node1, ")
    with ExitStack() as stack:
        for host in ("node0", "node1"):  # the switch between them still carries 1500
            stack.enter_context(boxes.network(box, host, set_mtu(9000), set_mtu(1500)))
        run = boxes.muster(box, "preflight", *words)
    assert run.levels("fabric.mtu") == {"node0": "fail", "node1": "fail"}
    assert "9000 bytes to node1" in run.found("fabric.mtu", "node0")


def test_peers_that_do_not_reach_each_other(box: Sandbox) -> None:
    # SSH comes from outside; between the hosts nothing passes.
    peer = box.state.host("node0").address
    route = ["ip", "route", "add", "unreachable", f"{peer}/32"]
    with boxes.network(box, "node1", route, ["ip", "route", "del", "unreachable", f"{peer}/32"]):
        run = boxes.muster(box, "preflight", "--waive", "rdma.link", "--format", "json")
    assert run.levels("fabric.reach") == {"node0": "fail", "node1": "fail"}


def test_clock_an_hour_off(box: Sandbox) -> None:
    with planted_python.planted(box, "node1", planted_python.AN_HOUR_AHEAD):
        run = boxes.check(box)
    assert run.levels("host.clock") == {"node0": "ok", "node1": "fail"}
    assert run.found("host.clock", "node1") == "60.0 min ahead of node0"


def test_waived_failure_stops_nothing_and_stays_visible(box: Sandbox) -> None:
    with boxes.gpus(box, "node1", simulated_gpus.mig(box.gpus("node1"), 1)):
        run = boxes.check(box, "--waive", "gpu.mig")
        table = boxes.muster(box, "preflight", "--no-pairs", "--waive", "gpu.mig", "--waive", "rdma.link")
    assert run.status == 0
    assert run.data["waived"] == ["rdma.link", "gpu.mig"]
    assert "waived by preflight_waive: gpu.mig, rdma.link" in table.out
    assert table.status == 0


def test_wrong_words_are_status_2(box: Sandbox) -> None:
    assert boxes.muster(box, "preflight", "--format", "yaml").status == 2


def test_one_session_a_host(box: Sandbox) -> None:
    marks = {host: box.journal_cursor(host) for host in ("node0", "node1")}
    assert boxes.check(box, "kimi-k2-instruct").data["level"] in ("ok", "warn")
    counts = {host: len(box.ssh_sessions(host, since=mark)) for host, mark in marks.items()}
    assert set(counts.values()) == {1}, "the bar is 6"


def changed_files(box: Sandbox, host: str) -> list[str]:
    """Return the files of a host that are newer than the mark, its logs and the simulated GPU tools left out."""
    find = "find / -xdev -newer /run/mark -type f -not -path '/var/log/*' -not -path '*/muster-sandbox/*'"
    return box.exec(host, ["sh", "-c", find]).stdout.split()


def test_deploy_prints_the_table_stops_on_a_failure_and_changes_no_file(box: Sandbox) -> None:
    for host in ("node0", "node1"):
        box.exec(host, ["touch", "/run/mark"])
    well = boxes.pyinfra(box, "deploys/preflight.py")
    assert well.status == 0
    assert "0 failed" in well.err
    assert well.err.count("preflight of 2 hosts") == 1
    with boxes.gpus(box, "node1", simulated_gpus.xid(box.gpus("node1"), 0, 79)):
        ill = boxes.pyinfra(box, "deploys/preflight.py")
    assert ill.status != 0
    assert "gpu.xid on node1 failed; nothing was touched" in ill.err + ill.out
    assert "Traceback" not in ill.err
    assert [changed_files(box, host) for host in ("node0", "node1")] == [[], []]


def test_drift_of_hosts_that_were_never_deployed(box: Sandbox) -> None:
    run = boxes.muster(box, "drift", "kimi-k2-instruct", "--format", "json")
    assert run.status == 1
    assert set(run.levels("drift.files").values()) == {"warn"}
    assert "is missing" in run.found("drift.files", "node0")
