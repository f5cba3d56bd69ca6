"""The stable names of all checks, and what each looks at; docs/preflight.md carries this table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from muster.errors import Refusal, unknown


@dataclass(frozen=True)
class Check:
    """A check as documented.

    Args:
        looks_at: what is read.
        warns, fails: when; empty for never.
    """

    looks_at: str
    warns: str = ""
    fails: str = ""


CHECKS: dict[str, Check] = {
    "host.reached": Check("SSH, a Python of 3.9 or newer", fails="the host does not answer, or has no Python"),
    "host.user": Check("whom SSH (and sudo) make us", fails="not root"),
    # Driver and build
    "driver.present": Check("nvidia-smi", fails="it is missing, hangs, or finds no driver"),
    "driver.version": Check(
        "the driver's version",
        fails="older than `min_driver`, or than the oldest driver any build of this vLLM runs on",
    ),
    "driver.build": Check(
        "the CUDA build chosen for the group: cu130 from driver 580 on, else cu129 from 525 on",
        fails="`torch_backend` names a build that this driver does not run",
    ),
    "engine.cuda": Check(
        "`torch.version.cuda` of the installed engine",
        warns="another than the chosen build's, though this driver runs it",
        fails="this driver does not run it, or it has no CUDA",
    ),
    "engine.import": Check("whether the installed vLLM and torch import", fails="they do not"),
    # Fabric Manager
    "fabric_manager.service": Check(
        "nvidia-fabricmanager.service",
        fails="not running, and the GPUs' fabric state is not Completed without it",
    ),
    "fabric_manager.version": Check("its version", fails="it differs from the driver's"),
    "fabric_manager.state": Check("fabric state and status of each GPU", fails="not Completed / Success"),
    # GPUs
    "gpu.count": Check("number of GPUs", warns="more than the inventory promises", fails="fewer"),
    "gpu.product": Check("product of each GPU", fails="not the inventory's"),
    "gpu.memory": Check("memory of each GPU", fails="more than 2 % below the product's"),
    "gpu.mig": Check("MIG mode", fails="on"),
    "gpu.ecc_mode": Check("ECC mode", warns="off or unknown"),
    "gpu.ecc_errors": Check("uncorrected ECC errors since the driver was loaded", warns="not readable", fails="any"),
    "gpu.remap": Check("row remaps and page retirements", warns="not readable", fails="pending or failed"),
    "gpu.persistence": Check("persistence mode", warns="off"),
    "gpu.throttle": Check("clock event reasons", warns="hardware, thermal or power-brake slowdown"),
    "gpu.processes": Check("processes that compute on the GPUs", fails="one that is not this group's"),
    "gpu.nvlink": Check("NVLink links of each GPU", fails="a link is down, or none where several GPUs share"),
    "gpu.topology": Check("`nvidia-smi topo -m`", warns="a pair of GPUs not connected by NVLink"),
    "gpu.xid": Check(
        "Xid errors in the kernel log since boot",
        warns="one that is neither fatal nor an application's, or the log is not readable",
        fails="a fatal one",
    ),
    # Memory
    "memory.fit": Check(
        "the plan's bytes for each GPU against the memory really there",
        warns="they do not fit, and `allow_oversubscription` says to go on",
        fails="they do not fit",
    ),
    # RDMA and fabric
    "rdma.link": Check(
        "state of the RDMA ports",
        warns="none is up and several hosts share a group: NCCL will use TCP; or some are down",
        fails="none is up and `rdma` is `required`",
    ),
    "rdma.gid": Check("GIDs of RoCE ports", warns="no RoCE v2 GID", fails="the same, and `rdma` is `required`"),
    "rdma.gpudirect": Check(
        "nvidia_peermem, or open kernel modules with DMA-BUF (Linux 5.12)",
        warns="neither: NCCL copies through host memory",
    ),
    "fabric.address": Check(
        "the address that peers use, and the interface it is on",
        fails="on no interface, or on another than `fabric_interface`",
    ),
    "fabric.link": Check("state of that interface", fails="down"),
    "fabric.reach": Check("TCP between each two hosts on the fabric", fails="no connection"),
    "fabric.mtu": Check(
        "MTU of the interface on all hosts, and a do-not-fragment ping between each two",
        warns="ping is not there to try",
        fails="hosts differ, or a full packet does not arrive",
    ),
    "fabric.round_trip": Check(
        "TCP round trip between each two hosts", warns="one is over 2 ms, or 5 times the median"
    ),
    "fabric.throughput": Check(
        "TCP throughput between each two hosts, one stream",
        warns="one is under 1 Gbit/s, or under half of the median",
    ),
    # Host
    "host.machine": Check("processor architecture", fails="not the wheels'"),
    "host.glibc": Check("C library", fails="older than the wheels' (2.28), or not glibc"),
    "host.systemd": Check("systemd's version", fails="older than 247"),
    "host.disk": Check("free space where the engine and the weights will lie", fails="too little"),
    "host.noexec": Check("mount options where programs run from, and of /tmp", fails="noexec, or read-only"),
    "host.memory": Check("RAM", warns="less than is needed"),
    "host.shm": Check("size of /dev/shm", warns="less than is needed"),
    "host.limits": Check("kernel.pid_max and fs.nr_open", warns="below what a rank of many threads and files uses"),
    "host.name": Check("what the host's own name resolves to", warns="nothing, or only a loopback address"),
    "host.ports": Check("the plan's ports", fails="taken by a process that is not this group's"),
    "host.clock": Check(
        "clocks of the hosts against each other", warns="over 1 s apart for certain", fails="over 60 s apart"
    ),
    # Parity
    "parity.driver": Check("driver on all hosts", warns="they differ"),
    "parity.kernel": Check("kernel on all hosts", warns="they differ"),
    "parity.product": Check("GPU product on all hosts", fails="they differ"),
    "parity.count": Check("GPU count on all hosts", fails="they differ"),
    "parity.python": Check("Python on all hosts", warns="they differ"),
    "parity.vllm": Check("installed vLLM on all hosts", warns="they differ"),
    "parity.torch": Check("installed torch on all hosts", warns="they differ"),
    "parity.nccl": Check("installed NCCL on all hosts", warns="they differ"),
    "parity.ray": Check("installed Ray on all hosts", warns="they differ"),
    "parity.revision": Check("model revision on all hosts", warns="they differ"),
    "parity.config": Check("digest of the rendered configuration on all hosts", warns="they differ"),
    # NCCL
    "nccl.transport": Check(
        "what NCCL took across the hosts", warns="sockets, where an RDMA port is up", fails="the all-reduce failed"
    ),
    "nccl.bandwidth": Check("bus bandwidth of an all-reduce", warns="under half of what the transport should give"),
    # Drift
    "drift.files": Check("the plan's files on each host", warns="missing or different"),
    "drift.versions": Check("the engine's versions against the plan", warns="not installed, or different"),
    "drift.revision": Check("the model's revision against the plan", warns="another commit"),
    # What a deploy sees besides; nobody can go on without these, so that they cannot be waived
    "deploy.state": Check("the group's files and units", fails="they cannot be read"),
    "deploy.systemd": Check("whether systemd answers about the group's units", fails="it does not"),
    "deploy.engine": Check("`engine_path`", fails="no vLLM there that can be run"),
    "deploy.ports": Check("ports of other groups on the host", fails="one is the plan's as well"),
    "deploy.files": Check("what lies in the places of the plan's files", fails="a directory or a link"),
}
WAIVABLE = tuple(name for name in CHECKS if not name.startswith("deploy."))


def table() -> str:
    """Return the catalogue as a Markdown table."""
    lines = ["| check | looks at | warns when | fails when |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {c.looks_at} | {c.warns} | {c.fails} |" for name, c in CHECKS.items()]
    return "\n".join(lines) + "\n"


def known_waivers(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of waived checks, each once, after making sure that there are such checks.

    Raises:
        Refusal: there is none of that name.
    """
    waived = tuple(dict.fromkeys(names))
    for name in waived:
        if name not in CHECKS:
            raise unknown("check", name, WAIVABLE, where="preflight_waive")
        if name not in WAIVABLE:
            raise Refusal(f"preflight_waive names {name}", needed="a check that a deploy can go on without")
    return waived
