"""How much of the disk paths take."""

from __future__ import annotations

from collections.abc import Sequence

from muster.on_host import run_command

_SECONDS = 300.0


def bytes_of(paths: Sequence[str]) -> dict[str, int]:
    """Return path -> bytes on the disk, of those that are there; what is in other file systems is not counted."""
    if not paths:
        return {}
    sizes = {}
    output = run_command.finish(["du", "-sx", "-B1", "--", *paths], _SECONDS).output
    for line in output.splitlines():
        size, _, path = line.partition("\t")
        if size.isdigit() and path in paths:
            sizes[path] = int(size)
    return sizes
