"""Limits of this machine's kernel that many hosts on it run into; raised where they are too low, never lowered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from muster.errors import Refusal

# Each host's systemd, journal, D-Bus and sshd watch files as this machine's root: 8 instances counted on Debian 12.
PER_HOST = 16
ELSEWHERE = 128
"""The kernel's own default, left for everything else on the machine."""

_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")


def wanted(hosts: int) -> int:
    """Return how many inotify instances root needs for so many hosts besides all else."""
    return ELSEWHERE + PER_HOST * hosts


def ensure(hosts: int, say: Callable[[str], None], place: Path = _INSTANCES) -> None:
    """Make sure that so many hosts can run on this machine at once.

    Args:
        hosts: of all sandboxes together.
        say: told when a limit is raised.
        place: of the setting, for tests.

    Raises:
        Refusal: it is too low and cannot be raised; units on the hosts would fail with "Too many open files".
    """
    found, needed = int(place.read_text()), wanted(hosts)
    if found >= needed:
        return
    try:
        place.write_text(f"{needed}\n")
    except OSError as error:
        raise Refusal(
            f"fs.inotify.max_user_instances is {found}",
            needed=f"{needed} for {hosts} hosts",
            fix=f"sysctl fs.inotify.max_user_instances={needed} ({error.strerror} when tried)",
        ) from None
    say(f"fs.inotify.max_user_instances raised from {found} to {needed}, for {hosts} hosts; it stays so until reboot")
