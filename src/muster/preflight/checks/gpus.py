"""The GPUs: present, of one product, healthy, idle, connected."""

from __future__ import annotations

from collections.abc import Iterator

from muster.guard import xids
from muster.preflight import chosen_gpus
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.smi import GpuFacts
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict, fail, of_finding, ok, warn

# Bits of clocks_event_reasons.active (NVML).
SLOWDOWNS = {0x8: "hardware", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}
# ECC and firmware reserve some memory, and the figure varies by MiB between drivers.
MEMORY_TOLERANCE = 0.02


def check(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    """Judge every GPU; one verdict per property names the odd ones."""
    if not needs.gpus or isinstance(report.gpus, Unreadable):
        return  # driver.present says why
    yield of_finding(chosen_gpus.count(report, needs))
    if report.gpus:
        yield from _identity(report.gpus, needs)
        yield from _health(report, report.gpus)
        yield _processes(report, needs)
        yield from _connected(report, min(len(report.gpus), needs.gpus))
    yield _driver_log(report)


def _where(gpus: list[GpuFacts]) -> str:
    return "GPU " + ", ".join(str(gpu.index) for gpu in gpus)


def _identity(gpus: tuple[GpuFacts, ...], needs: Needs) -> Iterator[Verdict]:
    if needs.product:
        odd = [gpu for gpu in gpus if gpu.name != needs.product]
        if odd:
            fix = "correct gpu in the inventory, or take the host out of it"
            yield fail("gpu.product", f"{odd[0].name} ({_where(odd)})", needs.product, fix)
        else:
            yield ok("gpu.product", needs.product)
    if needs.memory_mib:
        floor = needs.memory_mib * (1 - MEMORY_TOLERANCE)
        small = [gpu for gpu in gpus if gpu.memory_mib is None or gpu.memory_mib < floor]
        if small:
            fix = "check gpu in the inventory (memory variants differ in name only slightly) and MIG mode"
            found = f"{small[0].memory_mib} MiB ({_where(small)})"
            yield fail("gpu.memory", found, f"{needs.memory_mib} MiB", fix)
        else:
            yield ok("gpu.memory", f"{min(gpu.memory_mib or 0 for gpu in gpus)} MiB", f"{needs.memory_mib} MiB")


def _health(report: HostReport, gpus: tuple[GpuFacts, ...]) -> Iterator[Verdict]:
    mig = [gpu for gpu in gpus if gpu.mig not in (None, "Disabled")]
    if mig:
        fix = "nvidia-smi -mig 0, then reset the GPUs (nvidia-smi --gpu-reset) or reboot"
        yield fail("gpu.mig", f"{mig[0].mig} ({_where(mig)})", "Disabled", fix)
    else:
        yield ok("gpu.mig", "Disabled")
    off = [gpu for gpu in gpus if gpu.ecc != "Enabled"]
    if off:
        fix = "nvidia-smi -e 1, then reboot"
        yield warn("gpu.ecc_mode", f"{off[0].ecc or 'unknown'} ({_where(off)})", "Enabled", fix)
    else:
        yield ok("gpu.ecc_mode", "Enabled")
    hurt = [gpu for gpu in gpus if gpu.uncorrected]
    if hurt:
        found = ", ".join(f"{gpu.uncorrected} on GPU {gpu.index}" for gpu in hurt)
        fix = "reset the GPU (nvidia-smi --gpu-reset) or reboot; if they come back, have it replaced"
        yield fail("gpu.ecc_errors", found, "0", fix)
    elif any(gpu.uncorrected is None for gpu in gpus):
        yield warn("gpu.ecc_errors", "not readable", "0", "nvidia-smi -q -d ECC")
    else:
        yield ok("gpu.ecc_errors", "0")
    yield _remap(report, gpus)
    lazy = [gpu for gpu in gpus if gpu.persistence != "Enabled"]
    if lazy:
        fix = "systemctl enable --now nvidia-persistenced, or nvidia-smi -pm 1"
        found = f"{lazy[0].persistence or 'unknown'} ({_where(lazy)})"
        yield warn("gpu.persistence", found, "Enabled", fix)
    else:
        yield ok("gpu.persistence", "Enabled")
    slow = {gpu.index: [name for bit, name in SLOWDOWNS.items() if (gpu.throttle or 0) & bit] for gpu in gpus}
    slowdowns = ", ".join(f"GPU {index}: {' and '.join(why)} slowdown" for index, why in slow.items() if why)
    if slowdowns:
        fix = "check cooling and power supplies; nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER"
        yield warn("gpu.throttle", slowdowns, "no slowdown", fix)
    else:
        yield ok("gpu.throttle", "no slowdown")


def _remap(report: HostReport, gpus: tuple[GpuFacts, ...]) -> Verdict:
    fix = "reset the GPU (nvidia-smi --gpu-reset) or reboot to remap; a failed remap means replacing the GPU"
    retired = [gpu for gpu in gpus if (gpu.retired_pending or "No").lower() not in ("no", "0")]
    if retired:
        return fail("gpu.remap", f"page retirement pending ({_where(retired)})", "none pending", fix)
    if isinstance(report.remapped, Unreadable):
        return warn("gpu.remap", report.remapped.why, "none pending", "nvidia-smi -q -d ROW_REMAPPER")
    index = {gpu.uuid: gpu.index for gpu in gpus}
    failed = [uuid for uuid, (_, broken) in report.remapped.items() if broken]
    pending = [uuid for uuid, (waits, _) in report.remapped.items() if waits]
    if failed:
        return fail("gpu.remap", f"row remap failed on GPU {index.get(failed[0], failed[0])}", "none pending", fix)
    if pending:  # The page is offline already; Xid 63 asks for the same reset.
        return warn("gpu.remap", f"row remap pending on GPU {index.get(pending[0], pending[0])}", "none pending", fix)
    return ok("gpu.remap", "none pending")


def _processes(report: HostReport, needs: Needs) -> Verdict:
    if isinstance(report.apps, Unreadable):
        fix = "nvidia-smi --query-compute-apps=pid,process_name --format=csv"
        return fail("gpu.processes", report.apps.why, "a list of the GPUs' processes", fix)
    foreign = [app for app in report.apps if not needs.in_own_unit(app.cgroup)]
    if foreign:
        found = ", ".join(f"{app.name} (pid {app.pid})" for app in foreign[:6])
        pids = " ".join(str(app.pid) for app in foreign[:6])
        return fail("gpu.processes", found, "no process of others", f"stop them (ps -fp {pids})")
    return ok("gpu.processes", "this group's own" if report.apps else "none")


def _connected(report: HostReport, count: int) -> Iterator[Verdict]:
    if count < 2:
        yield ok("gpu.nvlink", "one GPU")
        return
    fix = "check Fabric Manager, then nvidia-smi nvlink -s and -e; power-cycle the host"
    if isinstance(report.nvlinks, Unreadable):
        yield fail("gpu.nvlink", report.nvlinks.why, "all links up", fix)
    else:
        down = [f"GPU {i}: {up} of {links}" for i, (up, links) in report.nvlinks.items() if up < links or not links]
        if down or not report.nvlinks:
            yield fail("gpu.nvlink", "; ".join(down[:8]) or "no NVLink", "all links up", fix)
        else:
            yield ok("gpu.nvlink", f"{min(links for _, links in report.nvlinks.values())} links up on each")
    if isinstance(report.topology, Unreadable):
        yield warn("gpu.topology", report.topology.why, "NVLink between all GPUs", "nvidia-smi topo -m")
        return
    far = [f"GPU {a} to {b}: {how}" for (a, b), how in report.topology.items() if a < b and not how.startswith("NV")]
    if far or len(report.topology) < count * (count - 1):
        needed = "NVLink between all GPUs"
        yield warn("gpu.topology", "; ".join(far[:4]) or "pairs are missing", needed, fix)
    else:
        yield ok("gpu.topology", "NVLink between all")


def _driver_log(report: HostReport) -> Verdict:
    log = report.driver_log
    if isinstance(log, Unreadable):
        return warn("gpu.xid", log.why, "a readable kernel log", "connect as root or with _sudo")
    return of_finding(xids.kernel_log(log.lines, log.repaired, [gpu.device for gpu in report.unused]))
