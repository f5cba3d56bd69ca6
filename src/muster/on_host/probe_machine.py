"""Clock, limits, memory, disks, listeners and RDMA ports of this machine, from files alone; nothing is changed."""

from __future__ import annotations

import glob
import os
import re
import sys
import threading
import time
from functools import partial
from typing import Any, Callable

from muster.on_host.probe_sources import answered
from muster.on_host.whole_files import read_start

Json = dict[str, Any]

TCP_LISTEN = "0A"
# The guard's program in a command line: its directory is named by digest.
GUARD = re.compile(r"/guard/[0-9a-f]{8,64}(/|$)")
TABLE_LIMIT = 4 * 1024 * 1024
_LOOKS, _PAUSE = 4, 0.25
GPUDIRECT_MODULES = ("nvidia", "nvidia_peermem", "nv_peer_mem", "gdrdrv")


def clock(request: Json) -> Json:
    """The wall clock, in seconds."""
    return {"wall": time.time()}


def system(request: Json) -> Json:
    """The operating system, its limits and its memory."""
    shm = os.statvfs("/dev/shm")
    return {
        "os_release": read_start("/etc/os-release"),
        "libc": os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None,
        "machine": os.uname().machine,
        "kernel": os.uname().release,
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "python_path": sys.executable,
        "uid": os.geteuid(),
        "meminfo": read_start("/proc/meminfo", 4096),
        "shm_bytes": shm.f_frsize * shm.f_blocks,
        "pid_max": read_start("/proc/sys/kernel/pid_max"),
        "nr_open": read_start("/proc/sys/fs/nr_open"),
    }


def infiniband(request: Json) -> Json:
    """Every port under /sys/class/infiniband: state, kind, and the types of the GIDs that are set."""
    root = os.path.join(request.get("sys", "/sys"), "class/infiniband")
    ports = []
    for port in sorted(glob.glob(os.path.join(root, "*/ports/*")))[:64]:
        types = []
        for index in range(16):
            gid = (read_start(os.path.join(port, "gids", str(index))) or "").strip()
            if gid.strip("0:"):
                types.append(read_start(os.path.join(port, "gid_attrs/types", str(index))))
        parts = port.split(os.sep)
        facts: Json = {"device": parts[-3], "port": parts[-1], "gid_types": types}
        for name in ("state", "phys_state", "link_layer"):
            facts[name] = read_start(os.path.join(port, name))
        ports.append(facts)
    return {"ports": ports}


def gpudirect(request: Json) -> Json:
    """The modules and versions that decide whether GPU memory can be registered for RDMA."""
    loaded = [line.split(" ", 1)[0] for line in (read_start("/proc/modules", TABLE_LIMIT) or "").splitlines()]
    return {
        "modules": [name for name in loaded if name in GPUDIRECT_MODULES],
        "driver": read_start("/proc/driver/nvidia/version"),
        "kernel": os.uname().release,
    }


def mounts() -> dict[str, tuple[str, str]]:
    """Return mount point -> (options, file system type)."""
    points = {}
    for line in (read_start("/proc/self/mountinfo", TABLE_LIMIT) or "").splitlines():
        left, _, right = line.partition(" - ")
        parts = left.split()
        if len(parts) > 5:
            point = re.sub(r"\\(\d{3})", lambda match: chr(int(match.group(1), 8)), parts[4])
            points[point] = (parts[5], right.split(" ")[0])
    return points


def path_facts(path: str) -> Json:
    """Return the free space and the mount of a path, or of its nearest existing parent."""
    there = os.path.realpath(path)
    while not os.path.isdir(there) and there != "/":
        there = os.path.dirname(there)
    points, mount = mounts(), there
    while mount not in points and mount != "/":
        mount = os.path.dirname(mount)
    options, kind = points.get(mount, ("", ""))
    space = os.statvfs(there)
    return {
        "mount": mount,
        "options": options,
        "type": kind,
        "device": os.stat(there).st_dev,
        "total": space.f_frsize * space.f_blocks,
        "free": space.f_frsize * space.f_bavail,
    }


def disk_use(path: str, entries: int = 50_000) -> int:
    """Return the bytes of disk that a directory's files take; links are not followed."""
    total = 0
    for parent, _, files in os.walk(path):
        for name in files:
            total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            entries -= 1
            if entries < 0:
                return total
    return total


def paths(request: Json) -> Json:
    """Facts of each requested path; a network mount that does not answer costs only its own path."""
    answers: Json = {}

    def probe(path: str, inside: str | None) -> None:
        try:
            answers[path] = {**path_facts(path), "held": disk_use(inside) if inside else 0}
        except OSError as error:
            answers[path] = {"error": str(error)}

    for path, inside in request.get("paths", {}).items():
        thread = threading.Thread(target=probe, args=(path, inside), daemon=True)
        thread.start()
        thread.join(5.0)
        answers.setdefault(path, {"error": "the file system did not answer in 5 s"})
    return dict(answers)


def listening(request: Json) -> Json:
    """The listeners on the requested TCP ports: address, process, pid and control group."""
    requested = set(request.get("ports", []))
    found = _listeners(requested)
    for _ in range(_LOOKS):
        if all(each.get("cgroup") for each in found):
            break
        time.sleep(_PAUSE)  # a process that was ending between the two tables has let go of its port
        found = _listeners(requested)
    return {"ports": found}


def _listeners(requested: set[int]) -> list[Json]:
    """Return who listens, as two tables tell one after the other; without a `pid` where no process holds the socket."""
    sockets: dict[str, Json] = {}
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (read_start(path, TABLE_LIMIT) or "").splitlines()[1:]:
            parts = line.split()
            if len(parts) > 9 and parts[3] == TCP_LISTEN:
                address, _, port = parts[1].rpartition(":")
                if int(port, 16) in requested:
                    sockets[f"socket:[{parts[9]}]"] = {"port": int(port, 16), "address": address}
    for link in glob.iglob("/proc/[0-9]*/fd/*") if sockets else ():
        try:
            listener = sockets.get(os.readlink(link))
        except OSError:
            continue
        if listener is not None and "pid" not in listener:
            pid = link.split("/")[2]
            listener["pid"] = int(pid)
            listener["process"] = (read_start(f"/proc/{pid}/comm") or "").strip()
            listener["cgroup"] = (read_start(f"/proc/{pid}/cgroup") or "")[:1024]
    return list(sockets.values())


def units(request: Json) -> Json:
    """The units of muster's groups in which an engine runs; a guard that holds a stopped group has none."""
    root = os.path.join(request.get("sys", "/sys"), "fs/cgroup")
    # With the older control group hierarchy, systemd's tree is one level below: search both.
    matches = (glob.glob(os.path.join(root, part, "system.slice/muster-*.service")) for part in ("", "systemd"))
    return {"running": sorted({os.path.basename(path) for paths in matches for path in paths if has_engine(path)})}


def has_engine(cgroup: str) -> bool:
    """Whether a unit has a process besides the guard and the journalctl that the guard reads the kernel log with."""
    for parent, _, _ in os.walk(cgroup):
        for pid in (read_start(os.path.join(parent, "cgroup.procs")) or "").split():
            command = (read_start(f"/proc/{pid}/cmdline") or "").split("\0")
            if command[0] and os.path.basename(command[0]) != "journalctl" and not any(map(GUARD.search, command[:4])):
                return True
    return False


SOURCES: dict[str, Callable[[Json], Json]] = {
    "system": system,
    "units": units,
    "infiniband": infiniband,
    "gpudirect": gpudirect,
    "paths": paths,
    "listening": listening,
    # Last: the later reading bounds the clock's offset on the answer's side.
    "clock": clock,
}


def main(request: Json) -> Json:
    """Gather every source.

    Args:
        request: `paths` (absolute path -> directory whose files count as present, or None),
            `ports` (TCP numbers), `sys` (where /sys is, for tests).
    """
    return {name: answered(partial(source, request)) for name, source in SOURCES.items()}
