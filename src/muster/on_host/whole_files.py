"""Files written whole and synced, read within bounds, and hashed; no foreign link is followed (`safe_paths`)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any

from muster.on_host import safe_paths

_BUFFER = 1 << 20
_JSON_LIMIT = 64 << 20


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text as a file has it, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: str) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_BUFFER))
    with os.fdopen(safe_paths.open_below(path), "rb", buffering=0) as handle:
        while True:
            size = handle.readinto(buffer)
            if not size:
                return digest.hexdigest()
            digest.update(buffer[:size])  # hashlib lets other threads run meanwhile


def read_start(path: str, limit: int = 65536) -> str | None:
    """Return the start of a file as text, or None when it cannot be read.

    Args:
        path: the file.
        limit: bytes read at most.
    """
    try:
        with os.fdopen(safe_paths.open_below(path), "rb") as handle:
            return handle.read(limit).decode("utf-8", "replace")
    except OSError:
        return None


def read_json(path: str, limit: int = _JSON_LIMIT) -> Any:
    """Return a JSON file's value, or None where the file is missing, broken, or not a regular file.

    Args:
        path: the file.
        limit: bytes that it may have at most.
    """
    try:
        return json.loads(safe_paths.read_bounded(path, limit))
    except (OSError, ValueError, RecursionError):
        return None


def read_object(path: str, limit: int = _JSON_LIMIT) -> dict[str, Any]:
    """Return the JSON object of a file; an empty one where `read_json` gives anything else."""
    value = read_json(path, limit)
    return value if isinstance(value, dict) else {}


def write_whole(path: str, data: bytes, mode: int = 0o644, owner: int = -1, group: int = -1) -> None:
    """Write bytes so that a reader, or a power cut, finds the old file or the new one and nothing between.

    Raises:
        OSError: a full disk or a missing directory; the old file is untouched.
    """
    temporary = path + ".muster-new"
    try:
        write_synced(temporary, data, mode, owner, group)
        safe_paths.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            safe_paths.remove_file(temporary)
        raise
    sync_directory(os.path.dirname(path))


def write_synced(path: str, data: bytes, mode: int, owner: int = -1, group: int = -1) -> None:
    """Write a new file that nobody else could read before its mode was set, and wait until it is on the disk."""
    with safe_paths.parent(path) as (directory, name):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fchown(handle, owner, group)
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_directory(path: str) -> None:
    """Make renames inside a directory survive a power cut."""
    handle = safe_paths.open_directory(path or "/")
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
