"""Every place on a host that muster makes. Whoever makes one takes its path from here, and removal knows them all.

A place belongs to one group, or to the host: then all groups share it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

ETC, STATE, CACHE, RUN = "/etc/muster", "/var/lib/muster", "/var/cache/muster", "/run/muster"
RUN_WEIGHTS = "/run/muster-weights"
"""Of the units that keep weights: a group's own runtime directory goes when its engine's unit stops."""
UNITS = "/etc/systemd/system"
SYSUSERS = "/etc/sysusers.d/muster.conf"
SYSCTL = "/etc/sysctl.d/90-muster.conf"
TMPFILES = "/etc/tmpfiles.d"
FIREWALL_UNIT = f"{UNITS}/muster-firewall@.service"
SHARED_DIRECTORIES = ("/etc/sysusers.d", "/etc/tmpfiles.d", "/etc/sysctl.d")
"""Directories of the system in which muster has files; minimal systems lack some of them."""
FORMER = (f"{TMPFILES}/muster.conf",)
"""What earlier versions wrote for all groups of a host, and a file of each group's own has replaced."""

REPAIRED = f"{ETC}/repaired"
ACCEPTED = f"{STATE}/accepted"
BEFORE = f"{STATE}/before.json"
UV_CACHE = f"{CACHE}/uv"
BESIDE_GROUPS = (REPAIRED, ACCEPTED, BEFORE, UV_CACHE)
"""What lies where each group has a directory of its name."""
TOOL_FILES = "/run/muster-tools"
METRICS, MEASURE = "/run/muster-metrics", "muster-host-metrics.service"
"""What a monitored host measured of itself, and the unit that writes there: its RuntimeDirectory, not root's."""
CHANGES = "/run/muster-change"
"""Locks of changes; of root alone: whoever can open a lock can hold it."""

ENGINES, GUARD, UV, PYTHON, WHEELS, BUNDLES, TOOLS, HUB, MONITORING = (
    ("engines", "guard", "uv", "python", "wheels", "bundles", "tools", "hub", "monitoring")
)  # fmt: skip
BELOW_ROOT = (ENGINES, GUARD, UV, PYTHON, WHEELS, BUNDLES, TOOLS, HUB, MONITORING)
"""Directories below the setting `root`, which itself may be a directory that was there before."""

USER, USER_COMMENT = "muster", "muster engine"
"""The engine's user, and how the one that muster makes is told from another of that name."""
MARK = "# Written by muster"
"""How each unit that muster writes begins."""


def config(group: str) -> str:
    """Return the directory of a group's files."""
    return f"{ETC}/{group}"


def state(group: str) -> str:
    """Return the directory of what a group's guard keeps; the unit's StateDirectory."""
    return f"{STATE}/{group}"


def cache(group: str) -> str:
    """Return the directory of a group's compiled kernels; the unit's CacheDirectory."""
    return f"{CACHE}/{group}"


def run(group: str) -> str:
    """Return the directory of the guard's socket; the unit's RuntimeDirectory."""
    return f"{RUN}/{group}"


def weights_group(group: str) -> str:
    """Return what the daemons that keep a group's weights are called."""
    return f"{group}-weights"


def weights_unit(group: str) -> str:
    """Return the unit beside the engine's whose processes keep a group's weights on the GPUs."""
    return f"muster-{weights_group(group)}.service"


def weights_run(group: str) -> str:
    """Return the directory of the daemons' sockets and their guard's; the RuntimeDirectory of their unit.

    Short for every group: the path of a Unix socket has 107 bytes at most, of which vLLM's names take 61.
    """
    return f"{RUN_WEIGHTS}/{hashlib.sha256(group.encode()).hexdigest()[:8]}"


def weights_config(group: str) -> str:
    """Return the configuration of the daemons' guard: the weights' guard.json."""
    return f"{config(group)}/weights.json"


def weights_state(group: str) -> str:
    """Return the directory of what the daemons' guard keeps; the StateDirectory of their unit."""
    return f"{state(group)}/weights"


def tmpfiles(group: str) -> str:
    """Return the file that names the directories which must be there before a group's units start."""
    return f"{TMPFILES}/muster-{group}.conf"


def resolution(release: str) -> str:
    """Return the file of a release's resolution: beside its environment, because an incomplete environment is wiped.

    Args:
        release: path of the environment.
    """
    return f"{release}.locked/pylock.toml"


def staged(path: str) -> str:
    """Return where a file waits for its rename: in the same directory, because a rename across file systems copies."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.muster-new")


def unit(name: str) -> str:
    """Return the path of a unit's file."""
    return f"{UNITS}/{name}"


def firewall_unit(group: str) -> str:
    """Return the name of the unit that loads a group's firewall table."""
    return f"muster-firewall@{group}.service"


def boot_unit(group: str) -> str:
    """Return the name of the unit that a change leaves enabled while it must not be cut; no group's own has an `@`."""
    return f"muster-return-boot@{group}.service"


def of_systemd(units: Iterable[str]) -> list[str]:
    """Return the units that systemd knows by these names: neither templates nor files that were only staged."""
    return [name for name in units if not name.startswith(".") and "@." not in name]


def of_group(group: str) -> tuple[str, ...]:
    """Return every place of one group but its units."""
    places = (config(group), tmpfiles(group), state(group), cache(group), run(group), weights_run(group))
    return tuple(place for place in places if place not in BESIDE_GROUPS)


def of_host(root: str) -> tuple[str, ...]:
    """Return every place that the groups of a host share, or that holds the places of all of them.

    Args:
        root: the setting of that name.
    """
    below = tuple(f"{root}/{name}" for name in BELOW_ROOT)
    return (SYSUSERS, SYSCTL, FIREWALL_UNIT, *FORMER, ETC, STATE, CACHE, RUN, RUN_WEIGHTS, TOOL_FILES, CHANGES, *below)
