"""The host itself: architecture, C library, systemd, disks, memory, limits, name, ports."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from muster.on_host.in_words import size
from muster.preflight.host_report import HostReport, Installed, PathFacts, System
from muster.preflight.needs import Needs, PathNeed
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict, fail, ok, warn
from muster.spec.versions import version

# 16 ranks of some thousand threads each; LimitNOFILE=1048576 in the units needs as much of fs.nr_open.
PID_MAX = 65536
NR_OPEN = 1048576


def check(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    """Judge everything but GPUs and fabric."""
    if isinstance(report.system, Unreadable):
        yield fail("host.machine", report.system.why, needs.machine, "run python3 on the host and see its error")
    else:
        yield from _system(report.system, needs)
    if isinstance(report.systemd, Unreadable):
        yield fail("host.systemd", report.systemd.why, f"systemd {needs.systemd}", "boot the host with systemd")
    elif report.systemd < needs.systemd:
        fix = "take a newer distribution (Debian 12, Ubuntu 22.04, RHEL 9)"
        yield fail("host.systemd", str(report.systemd), f"{needs.systemd} or newer", fix)
    else:
        yield ok("host.systemd", str(report.systemd))
    yield from _disk(report, needs)
    yield from _name(report, needs)
    yield from _ports(report, needs)


def _system(system: System, needs: Needs) -> Iterator[Verdict]:
    if system.uid == 0:
        yield ok("host.user", "root")
    else:
        fix = "set ssh_user to root in the inventory, or _sudo to True"
        yield fail("host.user", "unknown" if system.uid is None else f"uid {system.uid}", "root", fix)
    if system.machine == needs.machine:
        yield ok("host.machine", system.machine)
    else:
        fix = "take this host out of the inventory"
        yield fail("host.machine", system.machine or "unknown", needs.machine, fix)
    libc = version(system.libc) or ()
    wanted = ".".join(str(part) for part in needs.glibc)
    if system.libc.startswith("glibc") and libc >= needs.glibc:
        yield ok("host.glibc", f"{system.libc} ({system.os})")
    else:
        found = f"{system.libc or 'unknown'} ({system.os or 'unknown'})"
        yield fail("host.glibc", found, f"glibc {wanted} or newer", "take a newer distribution")
    if needs.memory_bytes:
        yield _at_least("host.memory", system.memory, needs.memory_bytes, "add memory")
    if needs.shm_bytes:
        fix = f"mount -o remount,size={needs.shm_bytes // 1024**2}M /dev/shm, and the same in /etc/fstab"
        yield _at_least("host.shm", system.shm, needs.shm_bytes, fix)
    low = [
        f"{name} {found}"
        for name, found, floor in (
            ("kernel.pid_max", system.pid_max, PID_MAX),
            ("fs.nr_open", system.nr_open, NR_OPEN),
        )
        if found is None or found < floor
    ]
    if low:
        needed = f"kernel.pid_max {PID_MAX}, fs.nr_open {NR_OPEN}"
        yield warn("host.limits", ", ".join(low), needed, "set them in /etc/sysctl.d and run sysctl --system")
    else:
        yield ok("host.limits", f"pid_max {system.pid_max}, nr_open {system.nr_open}")


def _at_least(check_name: str, size_there: int | None, needed: int, fix: str) -> Verdict:
    if size_there is not None and size_there >= needed:
        return ok(check_name, size(size_there), size(needed))
    return warn(check_name, "unknown" if size_there is None else size(size_there), size(needed), fix)


def _disk(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    """Judge disks: paths on one file system share its free space."""
    wanted: dict[int, list[tuple[PathNeed, PathFacts]]] = {}
    trouble, blocked = [], []
    for need in needs.paths:
        facts = report.paths.get(need.path, Unreadable("not read"))
        if isinstance(facts, Unreadable):
            trouble.append(f"{need.path}: {facts.why}")
            continue
        wanted.setdefault(facts.device, []).append((need, facts))
        if "ro" in facts.options and need.bytes:
            blocked.append(f"{need.path} ({facts.mount} is read-only)")
        elif need.executable and "noexec" in facts.options:
            blocked.append(f"{need.path} ({facts.mount} is noexec)")
    for pairs in wanted.values():
        missing = sum(_to_come(need, facts, report, needs) for need, facts in pairs)
        if missing > pairs[0][1].free:
            what = ", ".join(f"{need.what} in {need.path}" for need, _ in pairs if need.bytes)
            trouble.append(f"{size(pairs[0][1].free)} free on {pairs[0][1].mount}, {size(missing)} to come ({what})")
    if trouble:
        fix = "free space there, or point root and hf_home at a larger disk"
        yield fail("host.disk", "; ".join(trouble), "room for engine and weights", fix)
    elif needs.paths:
        free = min((pairs[0][1].free for pairs in wanted.values()), default=0)
        yield ok("host.disk", f"{size(free)} free where it is tightest")
    if blocked:
        fix = "remount with exec and rw (mount -o remount,exec,rw), or point root and hf_home elsewhere"
        yield fail("host.noexec", "; ".join(blocked), "mounts that programs can be run from", fix)
    elif needs.paths:
        yield ok("host.noexec", "none")


def _to_come(need: PathNeed, facts: PathFacts, report: HostReport, needs: Needs) -> int:
    if need.path == needs.release and isinstance(report.installed, Installed) and "vllm" in report.installed.versions:
        return 0
    return max(0, need.bytes - facts.held)


def _name(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    if needs.hosts < 2:
        return
    fix = f"give {report.hostname or 'the name'} the fabric address in /etc/hosts"
    needed = "an address that peers reach"
    if isinstance(report.resolves, Unreadable):
        yield warn("host.name", report.resolves.why, needed, fix)
        return
    outside = [address for address in report.resolves if not _loopback(address)]
    if outside:
        yield ok("host.name", f"{report.hostname}: {outside[0]}")
    else:
        found = f"{report.hostname}: {', '.join(report.resolves) or 'no address'}"
        # Ranks are given addresses; only programs that resolve the host's own name fail.
        yield warn("host.name", found, needed, fix)


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.split("%")[0]).is_loopback
    except ValueError:
        return True


def _unit(cgroup: str) -> str:
    units = re.findall(r"([^/\s]+\.service)", cgroup)
    return f", unit {units[-1]}" if units else ""


def _ports(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    if not needs.ports:
        return
    what = {need.number: need.what for need in needs.ports}
    if isinstance(report.listeners, Unreadable):
        yield fail("host.ports", report.listeners.why, "a readable /proc/net/tcp", "connect as root or with _sudo")
        return
    taken = dict.fromkeys(
        f"{one.port} ({what.get(one.port, '?')}) by {one.process or 'unknown'}, pid {one.pid or 'unknown'}"
        f"{_unit(one.cgroup)}"
        for one in report.listeners
        if one.port in what and not needs.in_own_unit(one.cgroup)
    )
    if taken:
        fix = "stop that process, or give this group other ports (port, master_port, rpc_port, ...)"
        yield fail("host.ports", "; ".join([*taken][:6]), "free", fix)
    else:
        yield ok("host.ports", f"{', '.join(str(number) for number in sorted(what))} free or this group's")
