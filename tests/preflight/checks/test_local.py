"""Every host-local check: what the recorded machine passes, and an answer that each check does not pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muster.preflight import read_report
from muster.preflight.catalogue import CHECKS
from muster.preflight.checks import local
from muster.preflight.host_report import unreachable
from muster.preflight.needs import PathNeed
from muster.preflight.verdict import Verdict

from .. import sample
from ..sample import GIB, ib_port, links, place, printed

FIREWALL = """table inet fw {
\tchain input {
\t\ttype filter hook input priority 0; policy drop;
\t\ttcp dport { 22, 8000 } accept
\t}
}
"""
# Verdicts of several hosts, of a measurement or of a comparison with the plan have tests of their own.
GROUP = (
    "host.clock",
    "parity.",
    "group.",
    "nccl.",
    "drift.",
    "deploy.",
    "fabric.reach",
    "fabric.mtu",
    "fabric.round_trip",
    "fabric.through",
)


def judged(check: str, needs: dict[str, Any] | None = None, **sources: Any) -> Verdict:
    verdicts = local(sample.report(**sources), sample.needs(**(needs or {})))
    (found,) = [verdict for verdict in verdicts if verdict.check == check]
    return found


def csv(old: str, new: str, count: int = -1) -> dict[str, Any]:
    """Return the recorded query with something else in it."""
    text = sample.recorded("h200x2-query-gpu.csv")
    assert old in text
    return printed(text.replace(old, new, count))


def one_gpu(old: str, new: str) -> dict[str, Any]:
    """Return the recorded query with something else in the row of GPU 1."""
    head, first, second = sample.recorded("h200x2-query-gpu.csv").strip().splitlines()
    assert old in second
    return printed("\n".join([head, first, second.replace(old, new, 1)]))


def manager(state: str = "active", load: str = "loaded", version: str = "580.159.04") -> dict[str, Any]:
    unit = printed(f"LoadState={load}\nActiveState={state}\nSubState=dead\n")["value"]
    return {"value": {"unit": unit, "version": printed(f"Fabric Manager version is : {version}\n")["value"]}}


def system(**changed: Any) -> dict[str, Any]:
    return {"value": {**sample.answers()["probe_machine"]["system"]["value"], **changed}}


def installed(**changed: Any) -> dict[str, Any]:
    answer = sample.answers()["probe_engine"]
    return {**answer, "release": {**answer["release"], **{k: v for k, v in changed.items() if k != "imported"}}} | {
        k: v for k, v in changed.items() if k == "imported"
    }


def xid(number: int) -> dict[str, Any]:
    line = f"2026-11-21T20:00:00+00:00 h kernel: NVRM: Xid (PCI:0000:00:06): {number}, pid=1, name=x, and so on"
    return printed(line)


def listener(port: int, cgroup: str) -> dict[str, Any]:
    one = {"port": port, "address": "00000000", "pid": 77, "process": "python3", "cgroup": cgroup}
    return {"value": {"ports": [one]}}


def paths(**changed: Any) -> dict[str, Any]:
    found = sample.answers()["probe_machine"]["paths"]["value"]
    names = {"tmp": "/tmp", "engine": "/opt/muster/engines/r", "weights": "/var/lib/muster/hf"}
    return {"value": {**found, **{names[key]: value for key, value in changed.items()}}}


APPS = "pid, process_name, gpu_uuid, used_gpu_memory [MiB]\n4242, /usr/bin/python3, GPU-0, 1000 MiB\n"
GONE = {"error": "nvidia-smi is not installed"}
NOT_YET = {"probe_engine": {"release": None, "files": {}, "digest": None, "revision": None}}
FABRIC_DOWN = csv("Completed, Success", "In Progress, N/A")

# check, level, what was found (a part of it), changed needs, changed sources
CASES: list[tuple[str, str, str, dict[str, Any], dict[str, Any]]] = [
    ("driver.present", "fail", "not installed", {}, {"probe_gpus__gpus": GONE}),
    ("driver.present", "fail", "couldn't communicate", {}, {
        "probe_gpus__gpus": printed("NVIDIA-SMI has failed because it couldn't communicate with the driver.\n", rc=9)
    }),
    ("driver.present", "fail", "did not answer", {}, {
        "probe_gpus__gpus": {"error": "nvidia-smi did not answer in 20 s"}
    }),
    ("driver.version", "fail", "515.65.01", {}, {"probe_gpus__gpus": csv("580.159.04", "515.65.01")}),
    ("driver.version", "fail", "580.159.04", {"min_driver": "590.10"}, {}),
    ("driver.version", "ok", "535.183.01", {}, {"probe_gpus__gpus": csv("580.159.04", "535.183.01")}),
    ("driver.build", "ok", "cu129", {}, {"probe_gpus__gpus": csv("580.159.04", "535.183.01")}),
    ("driver.build", "ok", "cu130", {}, {}),
    ("driver.build", "fail", "535.183.01", {"torch_backend": "cu130"}, {
        "probe_gpus__gpus": csv("580.159.04", "535.183.01")
    }),
    ("engine.cuda", "warn", "CUDA 12.9", {}, {"probe_engine": installed(cuda="12.9")}),
    ("engine.cuda", "fail", "CUDA 13.0", {}, {"probe_gpus__gpus": csv("580.159.04", "535.183.01")}),
    ("engine.cuda", "fail", "CUDA none", {}, {"probe_engine": installed(cuda="none")}),
    ("engine.cuda", "ok", "CUDA none", {"torch_backend": "cpu"}, {"probe_engine": installed(cuda="none")}),
    ("engine.import", "fail", "libcudart.so.13", {}, {
        "probe_engine": installed(imported={"error": "ImportError: libcudart.so.13: cannot open shared object file"})
    }),
    ("engine.ray", "fail", "Ray 2.40.0", {"ray": (2, 52, 0)}, {
        "probe_engine": installed(versions={"vllm": "0.33.0", "torch": "2.14.0", "ray": "2.40.0"})
    }),
    ("engine.ray", "fail", "Ray is missing", {"ray": (2, 52, 0)}, {
        "probe_engine": installed(versions={"vllm": "0.33.0", "torch": "2.14.0"})
    }),
    ("engine.ray", "ok", "Ray 2.60.0", {"ray": (2, 52, 0)}, {
        "probe_engine": installed(versions={"vllm": "0.33.0", "torch": "2.14.0", "ray": "2.60.0"})
    }),
    ("fabric_manager.service", "fail", "inactive", {}, {"probe_gpus__fabric_manager": manager("inactive")}),
    ("fabric_manager.service", "ok", "up without it", {}, {
        "probe_gpus__fabric_manager": manager("inactive", load="not-found")
    }),
    ("fabric_manager.service", "fail", "not-found", {}, {
        "probe_gpus__fabric_manager": manager("inactive", load="not-found"), "probe_gpus__gpus": FABRIC_DOWN
    }),
    ("fabric_manager.version", "fail", "580.159.03", {}, {"probe_gpus__fabric_manager": manager(version="580.159.03")}),
    ("fabric_manager.state", "fail", "GPU 0: In Progress", {}, {"probe_gpus__gpus": FABRIC_DOWN}),
    ("gpu.count", "fail", "missing: GPU 2, 3", {"gpus": 4}, {}),
    ("gpu.count", "fail", "0; missing", {}, {"probe_gpus__gpus": printed("No devices were found\n", rc=6)}),
    ("gpu.count", "ok", "2, of which the group uses 0", {"gpus": 1}, {}),
    ("gpu.product", "fail", "NVIDIA H20 (GPU 1)", {}, {"probe_gpus__gpus": one_gpu("NVIDIA H200", "NVIDIA H20")}),
    ("gpu.memory", "fail", "97871 MiB (GPU 1)", {}, {"probe_gpus__gpus": one_gpu("143771 MiB", "97871 MiB")}),
    ("gpu.mig", "fail", "Enabled (GPU 1)", {}, {"probe_gpus__gpus": one_gpu("Disabled", "Enabled")}),
    ("gpu.ecc_mode", "warn", "Disabled (GPU 1)", {}, {"probe_gpus__gpus": one_gpu("Enabled, 0", "Disabled, 0")}),
    ("gpu.ecc_errors", "fail", "1 on GPU 1", {}, {"probe_gpus__gpus": one_gpu("Enabled, 0", "Enabled, 1")}),
    ("gpu.ecc_errors", "warn", "not readable", {}, {"probe_gpus__gpus": one_gpu("Enabled, 0", "Enabled, [N/A]")}),
    ("gpu.remap", "warn", "pending on GPU 1", {}, {
        "probe_gpus__remapped": printed(
            "gpu_uuid, remapped_rows.pending, remapped_rows.failure\nGPU-00000000-0000-0000-0000-000000000001, 1, 0\n"
        )
    }),
    ("gpu.remap", "fail", "retirement", {}, {"probe_gpus__gpus": one_gpu("[N/A]", "Yes")}),
    ("gpu.remap", "warn", "not a valid", {}, {"probe_gpus__remapped": printed('Field "x" is not a valid field', rc=2)}),
    ("gpu.persistence", "warn", "Disabled (GPU 1)", {}, {
        "probe_gpus__gpus": one_gpu("[N/A], Enabled", "[N/A], Disabled")
    }),
    ("gpu.throttle", "warn", "hardware thermal", {}, {"probe_gpus__gpus": one_gpu("0x0000000000000001", "0x40")}),
    ("gpu.processes", "fail", "/usr/bin/python3 (pid 4242)", {}, {"probe_gpus__apps": printed(APPS, cgroups={})}),
    ("gpu.processes", "ok", "own", {}, {
        "probe_gpus__apps": printed(APPS, cgroups={"4242": "0::/system.slice/muster-g.service"})
    }),
    ("gpu.nvlink", "fail", "GPU 0: 17 of 18", {}, {
        "probe_gpus__nvlink": printed(sample.recorded("h200x2-nvlink-s.txt").replace("26.562 GB/s", "<inactive>", 1))
    }),
    ("gpu.nvlink", "fail", "no NVLink", {}, {"probe_gpus__nvlink": printed("")}),
    ("gpu.topology", "warn", "GPU 0 to 1: SYS", {}, {
        "probe_gpus__topology": printed(sample.recorded("h200x2-topo-m.txt").replace("NV18", "SYS"))
    }),
    ("gpu.xid", "fail", "Xid 79", {}, {"probe_gpus__driver_log": xid(79)}),
    ("gpu.xid", "warn", "Xid 63", {}, {"probe_gpus__driver_log": xid(63)}),
    ("gpu.xid", "ok", "1 harmless", {}, {"probe_gpus__driver_log": xid(31)}),
    ("gpu.xid", "warn", "Operation not permitted", {}, {
        "probe_gpus__driver_log": printed("", rc=1, stderr="dmesg: read kernel buffer: Operation not permitted\n")
    }),
    ("memory.fit", "fail", "119 GiB of 140 GiB", {"gpu_bytes": 125 * GIB}, {}),
    ("memory.fit", "warn", "119 GiB", {"gpu_bytes": 125 * GIB, "oversubscribe": True}, {}),
    ("rdma.link", "warn", "NCCL will use TCP", {}, {"probe_machine__infiniband": {"value": {"ports": []}}}),
    ("rdma.link", "fail", "none ACTIVE", {"rdma": "required"}, {
        "probe_machine__infiniband": {"value": {"ports": [ib_port("1: DOWN", "3: Disabled")]}}
    }),
    ("rdma.link", "ok", "not needed", {"rdma": "off"}, {"probe_machine__infiniband": {"value": {"ports": []}}}),
    ("rdma.gid", "warn", "no RoCE v2 GID on mlx5_0", {}, {
        "probe_machine__infiniband": {"value": {"ports": [ib_port(layer="Ethernet")]}}
    }),
    ("rdma.gid", "ok", "RoCE v2", {}, {
        "probe_machine__infiniband": {"value": {"ports": [ib_port(layer="Ethernet", kind="RoCE v2")]}}
    }),
    ("rdma.gpudirect", "warn", "neither", {}, {
        "probe_machine__gpudirect": {"value": {"modules": ["nvidia"], "driver": "", "kernel": "6.1.0"}}
    }),
    ("rdma.gpudirect", "ok", "DMA-BUF", {}, {
        "probe_machine__gpudirect": {
            "value": {
                "modules": ["nvidia"],
                "driver": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04",
                "kernel": "6.1.0",
            }
        }
    }),
    ("fabric.address", "fail", "not on this host", {"address": "198.51.100.99"}, {}),
    ("fabric.address", "fail", "is on eth0", {}, {
        "probe_gpus__links": printed(links("198.51.100.11", interface="eth0")),
    }),
    ("fabric.link", "fail", "down", {}, {"probe_gpus__links": printed(links("198.51.100.11", up=False))}),
    ("host.firewall", "warn", "nftables table inet fw, chain input (policy drop)", {}, {
        "probe_firewall__ruleset": printed(FIREWALL)
    }),
    ("host.firewall", "ok", "open the API's port", {"hosts": 1}, {"probe_firewall__ruleset": printed(FIREWALL)}),
    ("host.firewall", "warn", "firewalld (running)", {}, {"probe_firewall__firewalld": printed("running\n")}),
    ("host.firewall", "warn", "ufw (active)", {}, {"probe_firewall__ufw": printed("Status: active\n")}),
    ("host.nftables", "fail", "nft is not installed", {}, {"probe_firewall__trial": {"error": "nft is not installed"}}),
    ("host.nftables", "fail", "Operation not supported", {}, {
        "probe_firewall__trial": printed("", rc=1, stderr="Error: Could not process rule: Operation not supported")
    }),
    ("host.ip_filter", "warn", "cgroup v2", {}, {
        "probe_firewall__ip_filter": {"value": {"works": False, "why": "no unified control group tree (cgroup v2)"}}
    }),
    ("host.port_range", "warn", "from 1024 on", {}, {
        "probe_firewall__port_range": {"value": {"first": 1024, "last": 65535}}
    }),
    ("host.user", "fail", "uid 1000", {}, {"probe_machine__system": system(uid=1000)}),
    ("host.machine", "fail", "aarch64", {}, {"probe_machine__system": system(machine="aarch64")}),
    ("host.glibc", "fail", "glibc 2.17", {}, {"probe_machine__system": system(libc="glibc 2.17")}),
    ("host.glibc", "fail", "unknown", {}, {"probe_machine__system": system(libc=None)}),
    ("host.systemd", "fail", "239", {}, {"probe_gpus__systemd": sample.systemd("239")}),
    ("host.systemd", "fail", "not booted", {}, {"probe_gpus__systemd": sample.systemd(booted=False)}),
    ("host.systemd", "fail", "not installed", {}, {"probe_gpus__systemd": {"error": "systemctl is not installed"}}),
    ("host.disk", "fail", "100 GiB free on /, 958 GiB to come", {}, {
        "probe_machine__paths": paths(
            tmp=place(100 * GIB), engine=place(100 * GIB), weights=place(100 * GIB)
        )
    }),
    ("host.disk", "fail", "did not answer", {}, {
        "probe_machine__paths": paths(weights={"error": "did not answer in 5 s"})
    }),
    ("host.disk", "ok", "free", {}, {"probe_machine__paths": paths(weights=place(10 * GIB, device=2, held=950 * GIB))}),
    ("host.noexec", "fail", "/tmp (/ is noexec)", {}, {"probe_machine__paths": paths(tmp=place(options="rw,noexec"))}),
    ("host.noexec", "fail", "read-only", {}, {"probe_machine__paths": paths(weights=place(options="ro"))}),
    ("host.memory", "warn", "4.0 GiB", {}, {"probe_machine__system": system(meminfo="MemTotal: 4194304 kB\n")}),
    ("host.shm", "warn", "64 MiB", {}, {"probe_machine__system": system(shm_bytes=64 * 1024**2)}),
    ("host.limits", "warn", "kernel.pid_max 32768", {}, {"probe_machine__system": system(pid_max="32768\n")}),
    ("host.name", "warn", "127.0.1.1", {}, {
        "probe_gpus__names": {"value": {"hostname": "h", "own": printed("127.0.1.1 STREAM h\n")["value"]}}
    }),
    ("host.name", "warn", "no address", {}, {
        "probe_gpus__names": {"value": {"hostname": "h", "own": printed("", rc=2)["value"]}}
    }),
    ("host.ports", "fail", "8000 (port) by python3, pid 77", {}, {
        "probe_machine__listening": listener(8000, "0::/user.slice")
    }),
    ("host.ports", "ok", "this group's", {}, {
        "probe_machine__listening": listener(8000, "0::/system.slice/muster-g.service")
    }),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "level", "found", "needs", "sources"), CASES, ids=[f"{c[0]}-{c[1]}-{n}" for n, c in enumerate(CASES)]
)
def test_check_sees_it(check: str, level: str, found: str, needs: dict[str, Any], sources: dict[str, Any]) -> None:
    verdict = judged(check, needs, **sources)
    assert (verdict.level, verdict.host) == (level, "h200-0")
    assert found in verdict.found
    assert level == "ok" or (verdict.needed and verdict.fix)


def test_recorded_machine_passes_every_check() -> None:
    answer = installed(versions={"vllm": "0.33.0", "torch": "2.14.0", "ray": "2.60.0"})
    verdicts = local(sample.report(probe_engine=answer), sample.needs(ray=(2, 52, 0)))
    assert [verdict for verdict in verdicts if verdict.level != "ok"] == []
    assert {verdict.check for verdict in verdicts} == {name for name in CHECKS if not name.startswith(GROUP)}


def test_every_local_check_has_a_case_that_does_not_pass() -> None:
    tried = {check for check, level, *_ in CASES if level != "ok"}
    assert {name for name in CHECKS if not name.startswith(GROUP)} - {"host.reached"} == tried


def test_unreached_host_is_one_verdict() -> None:
    (verdict,) = local(unreachable("h200-3", "timed out"), sample.needs("h200-3"))
    assert (verdict.check, verdict.level, verdict.found, verdict.host) == (
        "host.reached",
        "fail",
        "timed out",
        "h200-3",
    )


def test_unprovisioned_host_has_nothing_to_say_of_the_engine() -> None:
    verdicts = local(sample.report(**NOT_YET), sample.needs())
    assert not [verdict for verdict in verdicts if verdict.check.startswith("engine.")]


def test_installed_engine_takes_no_more_disk() -> None:
    tight = place(5 * GIB, device=7)
    need = (PathNeed("/opt/muster/engines/r", "the engine", 14 * GIB, executable=True),)
    assert judged("host.disk", {"paths": need}, probe_machine__paths=paths(engine=tight)).level == "ok"
    assert judged("host.disk", {"paths": need}, probe_machine__paths=paths(engine=tight), **NOT_YET).level == "fail"


def test_host_without_promised_gpus_is_asked_for_none() -> None:
    verdicts = local(sample.report(probe_gpus__gpus=GONE), sample.needs(gpus=0))
    assert not [verdict for verdict in verdicts if verdict.check.startswith(("gpu.", "driver."))]


@pytest.mark.parametrize("source", ["gpus", "apps", "remapped", "nvlink", "topology", "driver_log", "fabric_manager",
                                    "links", "systemd", "names"])  # fmt: skip
def test_one_missing_tool_costs_its_own_checks_only(source: str) -> None:
    own: dict[str, Callable[[str], bool]] = {
        "gpus": lambda name: name.startswith(("driver.", "gpu.", "fabric_manager.", "engine.", "memory.")),
        "apps": lambda name: name == "gpu.processes",
        "remapped": lambda name: name == "gpu.remap",
        "nvlink": lambda name: name == "gpu.nvlink",
        "topology": lambda name: name == "gpu.topology",
        "driver_log": lambda name: name == "gpu.xid",
        "fabric_manager": lambda name: name.startswith("fabric_manager."),
        "links": lambda name: name.startswith("fabric."),
        "systemd": lambda name: name == "host.systemd",
        "names": lambda name: name == "host.name",
    }
    report = sample.report(**{f"probe_gpus__{source}": {"error": f"{source} is not installed"}})
    hurt = {verdict.check for verdict in local(report, sample.needs()) if verdict.level != "ok"}
    assert hurt, "a source that is missing must show"
    assert all(own[source](check) for check in hurt)


def test_nothing_answered_is_verdicts_not_a_traceback() -> None:
    report = read_report.from_answers("h200-0", {}, sample.NOW, sample.NOW)
    verdicts = local(report, sample.needs())
    assert {v.check for v in verdicts if v.level == "fail"} >= {"driver.present", "host.machine", "host.disk"}
