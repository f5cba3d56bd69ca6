"""Verdicts on an all-reduce across the group: its bus bandwidth, and the transport that NCCL chose."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muster.preflight.checks.rdma import is_up
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict

# Gigabytes a second of bus bandwidth below which something is wrong: a fifth of an H200's NV18 (18 x 26.562 GB/s,
# recorded), and a fifth of one 400 Gbit/s port.
FLOOR = {"P2P": 95.0, "NET/IB": 10.0}
SECONDS = 300.0
_VIA = re.compile(r" via ((?:NET|P2P|SHM)[/\w]*)")


@dataclass(frozen=True)
class AllReduce:
    """An all-reduce as one host saw it.

    Args:
        ranks: number of GPUs in it.
        seconds: of one all-reduce, the median.
        bytes: of the tensor.
        transports: as NCCL logged them, such as `NET/IB`, `P2P/CUMEM`, with how many channels.
        error: why there is none.
    """

    ranks: int = 0
    seconds: float = 0.0
    bytes: int = 0
    transports: Mapping[str, int] | None = None
    error: str | None = None

    @property
    def bus_bandwidth(self) -> float:
        """Bytes per second on the busiest link: size / time x 2(n-1)/n, the figure nccl-tests prints."""
        if not self.seconds or self.ranks < 2:
            return 0.0
        return self.bytes / self.seconds * 2 * (self.ranks - 1) / self.ranks


def requests(
    needs: Mapping[str, Needs],
    *,
    port: int,
    env: Mapping[str, str],
    backend: str = "nccl",
    size: int = 1 << 28,
) -> dict[str, Any]:
    """Return the request of `measure_allreduce` for each host.

    Args:
        needs: by host, in inventory order; ranks meet on the first host.
        port: TCP port they meet on.
        env: NCCL variables of the group's ranks.
        backend: of torch.distributed; `gloo` tries the same on processors.
        size: bytes of the tensor.
    """
    master = next(iter(needs.values())).address
    return {
        host: {
            "node": node,
            "nodes": len(needs),
            "gpus": need.gpus,
            "master": master,
            "port": port,
            "interface": need.interface,
            "env": {**env, **_own_env(need)},
            "backend": backend,
            "bytes": size,
            "seconds": SECONDS,
        }
        for node, (host, need) in enumerate(needs.items())
    }


def _own_env(need: Needs) -> dict[str, str]:
    """Return the variables that one host's ranks have for themselves: its network devices, its GPUs."""
    env = {name: value for name, value in need.env if name.startswith("NCCL_")}
    if need.devices:
        # nvidia-smi numbers GPUs by PCI address, CUDA does so only when told.
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(need.devices)}
    return env


def read_inner(answer: Mapping[str, Any]) -> AllReduce:
    """Read an answer of `run_unprivileged`, which holds that of the program it ran."""
    inner = answer.get("measure_allreduce", answer)
    return read(inner) if isinstance(inner, Mapping) else AllReduce(error="no figures")


def read(answer: Mapping[str, Any]) -> AllReduce:
    """Read an answer; whatever it holds, a result comes out."""
    if "error" in answer:
        return AllReduce(error=str(answer["error"])[:300])
    ranks, seconds, size, log = (answer.get(name) for name in ("ranks", "seconds", "bytes", "log"))
    if not (isinstance(ranks, int) and isinstance(seconds, (int, float)) and isinstance(size, int)):
        return AllReduce(error="no figures")
    return AllReduce(ranks, float(seconds), size, transports(log if isinstance(log, str) else ""))


def transports(log: str) -> dict[str, int]:
    """Return transport -> number of channels, from the lines of NCCL_DEBUG=INFO."""
    channels: dict[str, int] = {}
    for match in _VIA.finditer(log[: 4 * 1024 * 1024]):
        parts = match.group(1).split("/")
        # NET/IB/3/GDRDMA: the device number does not matter, GDRDMA (the GPU's memory is reached directly) does.
        name = "/".join([*parts[:2], *(["GDRDMA"] if "GDRDMA" in parts else [])])
        channels[name] = channels.get(name, 0) + 1
    return channels


def verdicts(results: Mapping[str, AllReduce], reports: Sequence[HostReport]) -> tuple[Verdict, ...]:
    """Judge transport and bandwidth on each host."""
    up = {r.host: not isinstance(r.rdma, Unreadable) and any(is_up(port) for port in r.rdma) for r in reports}
    judged: list[Verdict] = []
    for host, result in results.items():
        if result.error is not None:
            fix = "see NCCL's own log with NCCL_DEBUG=INFO; check fabric.* and rdma.* first"
            judged.append(Verdict("nccl.transport", "fail", result.error, "an all-reduce", fix, host))
            continue
        judged.append(_transport(host, result, rdma_up=up.get(host, False)))
        judged.append(_bandwidth(host, result))
    return tuple(judged)


def _transport(host: str, result: AllReduce, *, rdma_up: bool) -> Verdict:
    transports = ", ".join(sorted(result.transports or {})) or "not logged"
    sockets = any(name.startswith("NET/Socket") for name in result.transports or {})
    if sockets and rdma_up:
        fix = "set NCCL_IB_HCA and NCCL_IB_GID_INDEX in extra_env, and see rdma.gpudirect"
        return Verdict("nccl.transport", "warn", transports, "NET/IB: an RDMA port is up", fix, host)
    return Verdict("nccl.transport", "ok", transports, host=host)


def _bandwidth(host: str, result: AllReduce) -> Verdict:
    found = f"{result.bus_bandwidth / 1e9:.1f} GB/s over {result.ranks} GPUs"
    across = [name for name in result.transports or {} if name.startswith("NET/")]
    kinds = across or list(result.transports or {})
    floor = min((FLOOR[kind] for kind in FLOOR if any(name.startswith(kind) for name in kinds)), default=0.0)
    if result.bus_bandwidth / 1e9 >= floor:
        return Verdict("nccl.bandwidth", "ok", found, host=host)
    fix = "see gpu.nvlink, gpu.topology and rdma.link; NCCL_DEBUG=INFO shows rings and channels"
    return Verdict("nccl.bandwidth", "warn", found, f"{floor:.0f} GB/s", fix, host)
