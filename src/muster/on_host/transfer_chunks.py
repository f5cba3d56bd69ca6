"""Chunks, the unit of transfer: their size, their digests, and which of a file are right."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

from muster.on_host import transfer_store as store
from muster.on_host import whole_files

LEAST_CHUNK, LARGEST_CHUNK, FEWEST_CHUNKS = 256 << 10, 4 << 20, 512


def chunk_size(total: int) -> int:
    """Return the bytes of a chunk, the unit of transfer, resumption and repair.

    A swarm uses all links only while every host holds a chunk that the others lack: hosts x chunk must be small against
    the whole. Above 1 GiB a chunk is 4 MiB: handling it costs little against sending it.

    Args:
        total: bytes of all files.
    """
    size = LEAST_CHUNK
    while size < LARGEST_CHUNK and total // size > FEWEST_CHUNKS:
        size *= 2
    return size


def digests(path: str, chunk: int) -> tuple[str, list[str]]:
    """Return a file's SHA-256 and that of each chunk, in one pass.

    Args:
        path: the file.
        chunk: bytes of one.
    """
    whole = hashlib.sha256()
    chunks: list[str] = []
    buffer = memoryview(bytearray(chunk))
    with os.fdopen(store.open_own(path), "rb", buffering=0) as handle:
        while True:
            size = _fill(handle, buffer)
            if not size:
                return whole.hexdigest(), chunks
            whole.update(buffer[:size])
            chunks.append(hashlib.sha256(buffer[:size]).hexdigest())


def good_chunks(path: str, hashes: list[str], chunk: int) -> list[int]:
    """Return which chunks of a whole or partial file are right; holes of a sparse file are not read."""
    good = []
    buffer = memoryview(bytearray(chunk))
    with os.fdopen(store.open_own(path), "rb", buffering=0) as handle:
        for number, expected in enumerate(hashes):
            if not _has_data(handle.fileno(), number * chunk, chunk):
                continue
            handle.seek(number * chunk)
            size = _fill(handle, buffer)
            if size and hashlib.sha256(buffer[:size]).hexdigest() == expected:
                good.append(number)
    return good


def keep_good_start(path: str, hashes: list[str], known: list[str], chunk: int) -> int:
    """Turn a damaged file into the start of a download; return the bytes that are kept.

    Args:
        path: the file; it becomes `<path>.muster-wan`.
        hashes: digests that its chunks have.
        known: digests that they should have, as far as they are known.
        chunk: bytes of one.
    """
    good = next((n for n, (one, other) in enumerate(zip(hashes, known)) if one != other), min(len(hashes), len(known)))
    kept = min(good * chunk, os.path.getsize(path))
    os.rename(path, path + store.WAN)
    os.truncate(path + store.WAN, kept)
    return kept


def _has_data(handle: int, start: int, chunk: int) -> bool:
    try:
        return os.lseek(handle, start, os.SEEK_DATA) < start + chunk
    except OSError:  # past the last data
        return False


def _fill(handle: Any, buffer: memoryview) -> int:
    size = 0
    while size < len(buffer):
        read = handle.readinto(buffer[size:])
        if not read:
            break
        size += read
    return size


def known_chunks(directory: str, chunk: int, pinned: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return path -> SHA-256 of each chunk, as recorded by an earlier run for the files that are pinned now.

    Args:
        directory: of the revision.
        chunk: bytes of one.
        pinned: {path, sha256} of every file.
    """
    recorded = whole_files.read_object(os.path.join(directory, store.CHUNKS))
    files, manifest = recorded.get("files"), store.manifest_of(directory)
    if recorded.get("chunk") != chunk or not isinstance(files, dict) or manifest is None:
        return {}
    same = {p["path"] for p in pinned if manifest["files"].get(p["path"], {}).get("sha256") == p["sha256"]}
    try:
        return {path: split(base64.b64decode(text)) for path, text in files.items() if path in same}
    except (TypeError, ValueError):
        return {}


def split(packed: bytes) -> list[str]:
    """Return the hexadecimal digests packed in bytes."""
    return [packed[at : at + 32].hex() for at in range(0, len(packed), 32)]
