"""Whether all of a transfer fits on a host's disk."""

from __future__ import annotations

from muster.on_host import transfer_store as store
from muster.on_host.transfer_progress import RESERVE, size


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
