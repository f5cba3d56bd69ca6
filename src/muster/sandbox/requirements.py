"""What a sandbox needs of the machine, what of it is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from muster.errors import Refusal

_COMMANDS = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh-keygen": "openssh-client",
    "nsenter": "util-linux",
    "mount": "mount",
}
"""Command to the Debian and Ubuntu package that brings it."""

WITHOUT = "`muster plan INVENTORY RECIPE` works without a sandbox, on any system, with no host in reach"


@dataclass(frozen=True)
class Missing:
    """One thing that is not there, and what brings it."""

    what: str
    fix: str


def packages(which: Callable[[str], str | None] = shutil.which) -> list[str]:
    """Return the distribution packages whose commands are not on this machine."""
    return sorted({package for command, package in _COMMANDS.items() if which(command) is None})


def missing() -> list[Missing]:
    """Return everything that keeps this machine from running a sandbox; empty when nothing does."""
    if platform.system() != "Linux":
        here = platform.system() or "another system"
        return [Missing(f"Linux (this is {here})", "run it in a Linux machine")]
    out = []
    if os.geteuid() != 0:
        out.append(Missing("root (containers, mounts and bridges need it)", "run it with sudo"))
    absent = packages()
    if absent:
        commands = ", ".join(c for c, package in _COMMANDS.items() if package in absent)
        out.append(Missing(f"the commands {commands}", f"apt-get install -y {' '.join(absent)}"))
    kinds = Path("/proc/filesystems").read_text().split()
    if "overlay" not in kinds and not _loads("overlay"):
        out.append(Missing("the overlay file system in this kernel", "modprobe overlay, or another kernel"))
    if "cgroup2" not in kinds:
        out.append(Missing("control groups, version 2, in this kernel", "a kernel with CONFIG_CGROUPS"))
    return out


def _loads(module: str) -> bool:
    return Path(f"/lib/modules/{platform.release()}/kernel/fs/{module}fs").is_dir()


def check() -> None:
    """Return if this machine can run a sandbox.

    Raises:
        Refusal: it cannot; lists everything missing at once.
    """
    gaps = missing()
    if gaps:
        lines = [f"  - {gap.what}\n    {gap.fix}" for gap in gaps]
        raise Refusal("this machine cannot run a sandbox; missing:\n" + "\n".join(lines), detail=WITHOUT)
