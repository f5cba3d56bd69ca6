"""Whether a whole transfer fits on a host's disk."""

from __future__ import annotations

from muster.on_host import transfer_store as store
from muster.on_host.in_words import size
from muster.on_host.transfer_progress import RESERVE


def check_room(directory: str, total: int) -> None:
    """Refuse what will not fit before anything is written.

    Args:
        directory: of the revision.
        total: bytes of all its files.

    Raises:
        OSError: the arithmetic, and what to do.
    """
    here = sum(status.st_blocks * 512 for status in store.walk(directory).values())
    free = store.free(directory)
    needed = total - here + RESERVE
    if needed > free:
        raise OSError(
            f"{directory} takes {size(total)}, {size(here)} of it are here and {size(RESERVE)} must stay free:"
            f" {size(needed)} needed, {size(free)} free;"
            f" fix: free {size(needed - free)}, `muster weights prune`, or set weights_root"
        )
