"""What vLLM's own watchdog wrote of an engine that stood still: the stacks of every thread, one file per process.

The engine writes them below `stall_timeout`, into a directory of tmpfs that its user owns: they are read with bounds.
"""

from __future__ import annotations

import contextlib
import os

from .bounded_file import list_folder, read_bounded

FILES = 32
"""Files read at most: an engine has one per rank and one per EngineCore."""
SIZE = 1024 * 1024
"""Bytes of one file; a longer one is left out by name."""


def clear(folder: str) -> None:
    """Remove what earlier generations left; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        descriptor, names = list_folder(folder)
        try:
            for name in names:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)


def read(folder: str) -> dict[str, str]:
    """File name -> its text; empty where the watchdog wrote nothing."""
    dumps: dict[str, str] = {}
    with contextlib.suppress(OSError):
        descriptor, names = list_folder(folder)
        try:
            for name in sorted(names)[:FILES]:
                try:
                    dumps[name] = read_bounded(name, SIZE, descriptor).decode("utf-8", "replace")
                except OSError as error:
                    dumps[name] = f"not read: {error.strerror}"
        finally:
            os.close(descriptor)
    return dumps
