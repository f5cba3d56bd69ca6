"""The stable names of all checks, and what each looks at; docs/preflight.md carries this table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from muster.errors import Refusal, unknown


@dataclass(frozen=True)
class CatalogueEntry:
    """What a check reads and when it warns or fails, in words.

    Args:
        looks_at: what is read.
        warns, fails: when; empty for never.
    """

    looks_at: str
    warns: str = ""
    fails: str = ""


CHECKS: dict[str, CatalogueEntry] = {
    "host.reached": CatalogueEntry("SSH, a Python of 3.9 or newer", fails="the host does not answer, or has no Python"),
    "host.user": CatalogueEntry("the user that SSH (and sudo) give", fails="not root"),
    # Driver and build
    "driver.present": CatalogueEntry("nvidia-smi", fails="it is missing, hangs, or finds no driver"),
    "driver.version": CatalogueEntry(
        "the driver's version",
        fails="older than `min_driver`, or than the oldest driver any build of this vLLM runs on",
    ),
    "driver.build": CatalogueEntry(
        "the CUDA build chosen for the group: cu130 from driver 580 on, else cu129 from 525 on",
        fails="`torch_backend` names a build that this driver does not run",
    ),
    "engine.cuda": CatalogueEntry(
        "`torch.version.cuda` of the installed engine",
        warns="another than the chosen build's, though this driver runs it",
        fails="this driver does not run it, or it has no CUDA",
    ),
    "engine.import": CatalogueEntry("whether the installed vLLM and torch import", fails="they do not"),
    "engine.ray": CatalogueEntry("the installed Ray, where the group runs one", fails="older than its tokens (2.52.0)"),
    # Fabric Manager
    "fabric_manager.service": CatalogueEntry(
        "nvidia-fabricmanager.service",
        fails="not running, and the GPUs' fabric state is not Completed without it",
    ),
    "fabric_manager.version": CatalogueEntry("its version", fails="it differs from the driver's"),
    "fabric_manager.state": CatalogueEntry("fabric state and status of each GPU", fails="not Completed / Success"),
    # GPUs
    "gpu.count": CatalogueEntry(
        "the GPUs that the group uses: `gpus` of the host, by `gpu_devices`", fails="one is missing"
    ),
    "gpu.product": CatalogueEntry("product of each GPU", fails="not the inventory's"),
    "gpu.memory": CatalogueEntry("memory of each GPU", fails="more than 2 % below the product's"),
    "gpu.mig": CatalogueEntry("MIG mode", fails="on"),
    "gpu.ecc_mode": CatalogueEntry("ECC mode", warns="off or unknown"),
    "gpu.ecc_errors": CatalogueEntry(
        "uncorrected ECC errors since the driver was loaded", warns="not readable", fails="any"
    ),
    "gpu.remap": CatalogueEntry(
        "row remaps and page retirements", warns="a row remap is pending, or not readable", fails="a remap failed"
    ),
    "gpu.persistence": CatalogueEntry("persistence mode", warns="off"),
    "gpu.throttle": CatalogueEntry("clock event reasons", warns="hardware, thermal or power-brake slowdown"),
    "gpu.processes": CatalogueEntry("processes that compute on the GPUs", fails="one that is not this group's"),
    "gpu.nvlink": CatalogueEntry("NVLink links of each GPU", fails="a link is down, or none where several GPUs share"),
    "gpu.topology": CatalogueEntry("`nvidia-smi topo -m`", warns="a pair of GPUs not connected by NVLink"),
    "gpu.xid": CatalogueEntry(
        "Xids of GPUs and SXids of NVSwitches in the kernel log since boot or the last repair, by the driver's words",
        warns="the driver asks for a reset, names an unknown error, or the log is not readable",
        fails="one that needs a reset or a reboot",
    ),
    # Memory
    "memory.fit": CatalogueEntry(
        "the plan's bytes for each GPU against the memory really there",
        warns="they do not fit, and `allow_oversubscription` says to go on",
        fails="they do not fit",
    ),
    # RDMA and fabric
    "rdma.link": CatalogueEntry(
        "state of the RDMA ports",
        warns="none is up and several hosts share a group: NCCL will use TCP; or some are down",
        fails="none is up and `rdma` is `required`",
    ),
    "rdma.gid": CatalogueEntry(
        "GIDs of RoCE ports", warns="no RoCE v2 GID", fails="the same, and `rdma` is `required`"
    ),
    "rdma.gpudirect": CatalogueEntry(
        "nvidia_peermem, or open kernel modules with DMA-BUF (Linux 5.12)",
        warns="neither: NCCL copies through host memory",
    ),
    "fabric.address": CatalogueEntry(
        "the address that peers use, and the interface it is on",
        fails="on no interface, or on another than `fabric_interface`",
    ),
    "fabric.link": CatalogueEntry("state of that interface", fails="down"),
    "fabric.reach": CatalogueEntry(
        "TCP between each two hosts on the fabric, both ways: the group's own ports, and some that the kernel picks",
        fails="no connection on one of them",
    ),
    "fabric.mtu": CatalogueEntry(
        "MTU of the interface on all hosts, and a do-not-fragment ping between each two",
        warns="ping is not there to try",
        fails="hosts differ, or a full packet does not arrive",
    ),
    "fabric.round_trip": CatalogueEntry(
        "TCP round trip between each two hosts", warns="one is over 2 ms, or 5 times the median"
    ),
    "fabric.throughput": CatalogueEntry(
        "TCP throughput between each two hosts, one stream",
        warns="one is under 1 Gbit/s, or under half of the median",
    ),
    # Host
    "host.machine": CatalogueEntry("processor architecture", fails="not the wheels'"),
    "host.glibc": CatalogueEntry("C library", fails="older than the wheels' (2.28), or not glibc"),
    "host.systemd": CatalogueEntry("systemd's version", fails="older than 247"),
    "host.disk": CatalogueEntry("free space where the engine and the weights go", fails="too little"),
    "host.noexec": CatalogueEntry("mount options where programs run from, and of /tmp", fails="noexec, or read-only"),
    "host.memory": CatalogueEntry("RAM", warns="less than is needed"),
    "host.shm": CatalogueEntry("size of /dev/shm", warns="less than is needed"),
    "host.limits": CatalogueEntry(
        "kernel.pid_max and fs.nr_open", warns="below what a rank of many threads and files uses"
    ),
    "host.name": CatalogueEntry("what the host's own name resolves to", warns="nothing, or only a loopback address"),
    "host.ports": CatalogueEntry("the plan's ports", fails="taken by a process that is not this group's"),
    "host.firewall": CatalogueEntry(
        "firewalls that are not muster's: firewalld, ufw, chains of nftables that refuse incoming connections",
        warns="there is one, and the group's hosts have not shown that it lets them through",
    ),
    "host.nftables": CatalogueEntry(
        "whether the kernel would take the plan's nftables table", fails="nft is missing, or the kernel refuses it"
    ),
    "host.ip_filter": CatalogueEntry(
        "whether the kernel enforces the units' IPAddressDeny=", warns="no cgroup v2, or no cgroup programs (eBPF)"
    ),
    "host.port_range": CatalogueEntry(
        "net.ipv4.ip_local_port_range", warns="it begins below the ports that the plan's table covers"
    ),
    "host.clock": CatalogueEntry(
        "clocks of the hosts against each other", warns="certainly over 1 s apart", fails="over 60 s apart"
    ),
    # Parity
    "parity.driver": CatalogueEntry("driver on all hosts", warns="they differ"),
    "parity.kernel": CatalogueEntry("kernel on all hosts", warns="they differ"),
    "parity.product": CatalogueEntry("GPU product on all hosts", fails="they differ"),
    "parity.count": CatalogueEntry("GPU count on all hosts", fails="they differ"),
    "parity.python": CatalogueEntry("Python on all hosts", warns="they differ"),
    "parity.vllm": CatalogueEntry("installed vLLM on all hosts", warns="they differ"),
    "parity.torch": CatalogueEntry("installed torch on all hosts", warns="they differ"),
    "parity.nccl": CatalogueEntry("installed NCCL on all hosts", warns="they differ"),
    "parity.ray": CatalogueEntry("installed Ray on all hosts", warns="they differ"),
    "parity.revision": CatalogueEntry("model revision on all hosts", warns="they differ"),
    "parity.config": CatalogueEntry("digest of the rendered configuration on all hosts", warns="they differ"),
    # NCCL
    "nccl.transport": CatalogueEntry(
        "what NCCL took across the hosts", warns="sockets, where an RDMA port is up", fails="the all-reduce failed"
    ),
    "nccl.bandwidth": CatalogueEntry(
        "bus bandwidth of an all-reduce", warns="under half of what the transport should give"
    ),
    # Drift
    "drift.files": CatalogueEntry("the plan's files on each host", warns="missing or different"),
    "drift.versions": CatalogueEntry("the engine's versions against the plan", warns="not installed, or different"),
    "drift.revision": CatalogueEntry("the model's revision against the plan", warns="another commit"),
    # Where a group has been deployed
    "group.unit": CatalogueEntry("the group's units on each host", fails="one is masked"),
    "group.key": CatalogueEntry("the guard key on each host", warns="another than on the other hosts"),
    "group.files": CatalogueEntry("what a unit of the group starts from", warns="missing, or not whole"),
    # Only in a deploy, which cannot go on without them: not waivable.
    "deploy.state": CatalogueEntry("the group's files and units", fails="they cannot be read"),
    "deploy.systemd": CatalogueEntry("whether systemd answers about the group's units", fails="it does not"),
    "deploy.run": CatalogueEntry("room below /run", fails="less than the 16 MiB that systemd needs to reload"),
    "deploy.engine": CatalogueEntry("`engine_path`", fails="no vLLM there that can be run"),
    "deploy.units": CatalogueEntry("units of other groups on the host", fails="one is also the plan's"),
    "deploy.ports": CatalogueEntry("ports of other groups on the host", fails="one is also the plan's"),
    "deploy.gpus": CatalogueEntry(
        "GPUs of other groups on the host, whether they run or not", fails="one is also the plan's, or cannot be told"
    ),
    "deploy.files": CatalogueEntry("what is at the paths of the plan's files", fails="a directory or a link"),
}
WAIVABLE = tuple(name for name in CHECKS if not name.startswith("deploy."))


def as_markdown() -> str:
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
