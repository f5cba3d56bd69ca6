"""Kernel limits of this machine that many hosts reach; raised where they are too low, never lowered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from muster.errors import Refusal

# Each host's systemd, journal, D-Bus and sshd watch files as this machine's root: 8 instances counted on Debian 12.
PER_HOST = 16
ELSEWHERE = 128
"""The kernel's own default, left for everything else on the machine."""

_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")


def instances_for(hosts: int) -> int:
    """Return how many inotify instances root needs for `hosts` and everything else on this machine."""
    return ELSEWHERE + PER_HOST * hosts


def ensure(hosts: int, say: Callable[[str], None], place: Path = _INSTANCES) -> None:
    """Make sure that `hosts` can run on this machine at once.

    Args:
        hosts: of all sandboxes together.
        say: called when a limit is raised.
        place: of the setting, for tests.

    Raises:
        Refusal: it is too low and cannot be raised; units on the hosts would fail with "Too many open files".
    """
    present, needed = int(place.read_text()), instances_for(hosts)
    if present >= needed:
        return
    try:
        place.write_text(f"{needed}\n")
    except OSError as error:
        raise Refusal(
            f"fs.inotify.max_user_instances is {present}",
            needed=f"{needed} for {hosts} hosts",
            fix=f"sysctl fs.inotify.max_user_instances={needed} ({error.strerror} when tried)",
        ) from None
    say(f"fs.inotify.max_user_instances raised from {present} to {needed}, for {hosts} hosts; until the next reboot")
