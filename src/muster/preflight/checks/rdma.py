"""RDMA between hosts: ports, GIDs, and whether GPU memory can be registered."""

from __future__ import annotations

from collections.abc import Iterator

from muster.preflight.host_report import HostReport, RdmaPort
from muster.preflight.needs import Needs
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict, fail, ok, warn

DMA_BUF_KERNEL = (5, 12)


def is_up(port: RdmaPort) -> bool:
    """Whether a port carries traffic."""
    return port.state == "ACTIVE" and port.physical == "LinkUp"


def check(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    """Judge RDMA where the group spans hosts; a single host needs none."""
    if needs.rdma == "off" or (needs.hosts < 2 and needs.rdma == "auto"):
        yield ok("rdma.link", "not needed")
        return
    judge = fail if needs.rdma == "required" else warn
    ports = () if isinstance(report.rdma, Unreadable) else report.rdma
    up = [port for port in ports if is_up(port)]
    if not up:
        what = report.rdma.why if isinstance(report.rdma, Unreadable) else "no RDMA device"
        found = f"{len(ports)} ports, none ACTIVE and LinkUp" if ports else what
        fix = "check cables, the drivers (ibstat) and the subnet manager; or set rdma to off and accept TCP"
        yield judge("rdma.link", f"{found}: NCCL will use TCP", "a port that is ACTIVE and LinkUp", fix)
        return
    down = [f"{port.device}/{port.port} {port.state} {port.physical}" for port in ports if not is_up(port)]
    names = ", ".join(port.device for port in up[:8])
    if down:
        fix = "connect it, or leave it out with NCCL_IB_HCA in extra_env"
        yield warn("rdma.link", f"up: {names}; down: {', '.join(down[:8])}", "all ports up", fix)
    else:
        yield ok("rdma.link", f"{len(up)} up: {names}")
    roce = [port for port in up if port.layer == "Ethernet"]
    bare = [port.device for port in roce if "RoCE v2" not in port.gid_types]
    if bare:
        fix = "give the port's network interface an address; then cat /sys/class/infiniband/*/ports/*/gids/*"
        yield judge("rdma.gid", f"no RoCE v2 GID on {', '.join(bare)}", "one on each RoCE port", fix)
    else:
        yield ok("rdma.gid", "RoCE v2 GIDs are set" if roce else "InfiniBand")
    yield _gpudirect(report)


def _gpudirect(report: HostReport) -> Verdict:
    direct, needed = report.gpudirect, "nvidia_peermem, or NVIDIA's open kernel modules on Linux 5.12"
    fix = "modprobe nvidia_peermem, and list it in /etc/modules-load.d"
    if isinstance(direct, Unreadable):
        return warn("rdma.gpudirect", direct.why, needed, fix)
    peermem = sorted({"nvidia_peermem", "nv_peer_mem"} & set(direct.modules))
    if peermem:
        return ok("rdma.gpudirect", peermem[0])
    if "Open Kernel Module" in direct.driver and (direct.kernel or ()) >= DMA_BUF_KERNEL:
        return ok("rdma.gpudirect", "DMA-BUF")
    return warn("rdma.gpudirect", "neither: NCCL copies through host memory", needed, fix)
