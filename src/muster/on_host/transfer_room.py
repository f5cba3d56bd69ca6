"""Whether a transfer may write where it should, and whether all of it fits on the disk."""

from __future__ import annotations

import os
import pwd
import stat
from typing import Any

from muster.on_host import safe_paths
from muster.on_host import transfer_store as store
from muster.on_host.in_words import size
from muster.on_host.transfer_progress import RESERVE


def check_room(directory: str, files: list[dict[str, Any]]) -> None:
    """Refuse what will not fit before anything is written.

    Args:
        directory: of the revision; other files in it stay until the revision is complete.
        files: {path, size} of all its files.

    Raises:
        OSError: the arithmetic, and what to do.
    """
    total, present = sum(int(entry["size"]) for entry in files), store.walk(directory)
    here = sum(
        min(int(entry["size"]), present[path].st_blocks * 512)
        for entry in files
        for path in (entry["path"], entry["path"] + store.PART, entry["path"] + store.WAN)
        if path in present
    )
    free = store.free(directory)
    needed = total - here + RESERVE
    if needed > free:
        raise OSError(
            f"{directory} takes {size(total)}, {size(here)} of it are here and {size(RESERVE)} must stay free:"
            f" {size(needed)} needed, {size(free)} free;"
            f" fix: free {size(needed - free)}, `muster weights prune`, or set weights_root"
        )


def make_own(directory: str) -> None:
    """Make a directory for files that only this user (root) may put there.

    Args:
        directory: absolute.

    Raises:
        OSError: it, or one on the way to it, belongs to somebody else, who could exchange what root writes.
    """
    safe_paths.make_directory(directory)
    check_own(directory)


def check_own(directory: str) -> None:
    """Refuse a directory that is not this user's (root's) own, from the root of the file system on.

    Args:
        directory: absolute; what is missing of it is not looked at.

    Raises:
        OSError: whose it is, and what to do.
    """
    path = os.path.realpath(directory)
    for at in ["/", *(path[:end] for end in range(1, len(path) + 1) if end == len(path) or path[end] == "/")]:
        try:
            handle = safe_paths.open_directory(at)
        except FileNotFoundError:
            return
        try:
            status = os.fstat(handle)
        finally:
            os.close(handle)
        # In a directory with the sticky bit others can make names, but not exchange ours: the next step is judged.
        open_to = status.st_mode & (0o002 if status.st_gid == 0 else 0o022) and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or open_to:
            raise OSError(
                f"{at} belongs to {_name(status.st_uid)} (mode {stat.S_IMODE(status.st_mode):04o}), who could exchange"
                f" what root writes below it; needed: a directory of root's that nobody else writes to;"
                f" fix: chown root:root {at}; chmod go-w {at}; or set weights_root to another directory"
            )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
