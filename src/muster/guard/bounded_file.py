"""Reads small files from directories that the engine's user can write, as root does for `ctl`.

Whatever lies there instead of the file (a link, a FIFO, a device, something huge or deeply nested) is an error at once:
it is neither followed, waited for, nor loaded.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any

FILE_LIMIT = 1024 * 1024
"""Bytes of one file."""


def read_bounded(path: str, limit: int = FILE_LIMIT, folder: int | None = None) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; `folder` as dir_fd of open(2). Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if found.st_size > limit:
            raise OSError(errno.EFBIG, f"{found.st_size} bytes, at most {limit} are read", path)
        data = b""
        while chunk := os.read(descriptor, limit + 1 - len(data)):
            data += chunk
            if len(data) > limit:
                raise OSError(errno.EFBIG, f"more than {limit} bytes", path)
        return data
    finally:
        os.close(descriptor)


def read_json(path: str, limit: int = FILE_LIMIT, folder: int | None = None) -> dict[str, Any]:
    """The JSON object in such a file. Raises OSError or ValueError."""
    try:
        data = json.loads(read_bounded(path, limit, folder))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {type(data).__name__}, needed an object")
    return data


def list_folder(path: str) -> tuple[int, list[str]]:
    """A descriptor of a folder, which the caller closes, and the names in it; never a link's. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return descriptor, os.listdir(descriptor)
    except OSError:
        os.close(descriptor)
        raise
