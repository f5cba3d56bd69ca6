"""What must hold before a host takes part in a transfer: that nobody else writes there, and that all of it fits."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from typing import Any

from muster.host import weights_store as store
from muster.host.weights_text import RESERVE, size


def check_room(directory: str, total: int) -> None:
    """Refuse, before anything is written, what will not fit.

    Args:
        directory: of the revision.
        total: bytes of all its files.

    Raises:
        OSError: the arithmetic, and what to do.
    """
    here = sum(status.st_blocks * 512 for status in store.walk(directory).values())
    free = store.free(directory)
    wanted = total - here + RESERVE
    if wanted > free:
        raise OSError(
            f"{directory} needs {size(total)}, {size(here)} of it are here and {size(RESERVE)} stay free:"
            f" {size(wanted)} wanted, {size(free)} free;"
            f" fix: free {size(wanted - free)}, `muster weights prune`, or set weights_root"
        )


def take(lock: Any, say: Callable[[str], None]) -> None:
    """Take the lock of a revision; a session that was cut may still hold it for a moment.

    Args:
        lock: its open file.
        say: prints a line of progress.

    Raises:
        OSError: another session holds it for longer.
    """
    for _ in range(60):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            say("another session still writes here; waiting for it")
            time.sleep(5)
    raise OSError(f"another session has been writing for 5 minutes; its process holds {lock.name}")
