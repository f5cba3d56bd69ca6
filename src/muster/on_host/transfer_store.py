"""A model's revision on this host's disk: what is there, what is verified, what is wrong.

A file under its final name is whole. What arrives is written beside it, as `<file>.muster-part` (chunks in any order,
from peers) or `<file>.muster-wan` (a prefix, from outside), and renamed when its SHA-256 is right. A run resumes by
hashing what is there: no record of progress can disagree with the disk.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from muster.on_host import safe_paths, whole_files

MANIFEST, VERIFIED, CHUNKS = ".muster-manifest.json", ".muster-verified.json", ".muster-chunks.json"
RECORDS = (MANIFEST, VERIFIED, CHUNKS)
PART, WAN = ".muster-part", ".muster-wan"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: object) -> bool:
    """Whether a revision is a commit: 40 hexadecimal digits."""
    return isinstance(revision, str) and bool(_COMMIT.fullmatch(revision))


def state_of(directory: str) -> dict[str, Any]:
    """Return what a revision's directory holds, by names, sizes, times and inodes; no file is read.

    Returns:
        `manifest` (or None), `good` [path] whose stamp holds, `wrong` {path: why}, `extra` [path] that no manifest
        names, `bytes` on the disk, `complete`, `free` bytes for further files.
    """
    manifest = manifest_of(directory)
    stamps = whole_files.read_object(os.path.join(directory, VERIFIED))
    present = walk(directory)
    good, wrong = [], {}
    for path, entry in (manifest or {}).get("files", {}).items():
        if path not in present:
            wrong[path] = "missing"
        elif present[path].st_size != entry["size"]:
            wrong[path] = f"has {present[path].st_size} bytes, not {entry['size']}"
        elif stamps.get(path) != [*stamp(present[path]), entry["sha256"]]:
            wrong[path] = "changed since it was verified"
        else:
            good.append(path)
    extra = sorted(path for path in present if manifest and path not in manifest["files"])
    return {
        "manifest": manifest,
        "good": good,
        "wrong": wrong,
        "extra": extra,
        "bytes": sum(status.st_blocks * 512 for status in present.values()),
        "complete": bool(manifest) and not wrong and not [path for path in extra if not unfinished(path)],
        "free": free(directory),
    }


def manifest_of(directory: str) -> dict[str, Any] | None:
    """Return the manifest of a complete revision; None where there is none, or something else in its place."""
    manifest = whole_files.read_object(os.path.join(directory, MANIFEST))
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(_is_entry(entry) for entry in files.values()):
        return None
    return manifest


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("size"), int) and isinstance(entry.get("sha256"), str)


def walk(directory: str) -> dict[str, os.stat_result]:
    """Return every file below a directory except muster's own records, by its path from there."""
    present = {}
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.relpath(os.path.join(place, name), directory)
            if path not in RECORDS:
                present[path] = os.lstat(os.path.join(place, name))
    return present


def unfinished(path: str) -> bool:
    """Whether a transfer is still writing a path."""
    return path.endswith((PART, WAN))


def free(path: str) -> int:
    """Return the bytes free at a path, which need not exist yet."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize


def stamp(status: os.stat_result) -> list[int]:
    """Return what identifies a verified file: size, mtime (ns), inode."""
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def inside(directory: str, path: str) -> str:
    """Return a file's full path.

    Raises:
        OSError: the path leads out of the directory; a listing must not write anywhere else.
    """
    full = os.path.normpath(os.path.join(directory, path))
    if os.path.isabs(path) or not full.startswith(directory.rstrip("/") + "/") or path != os.path.normpath(path):
        raise OSError(f"the listing names a file outside its directory: {path!r}")
    return full


def open_own(path: str, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of a file of a revision; staging makes regular files only, with one name each.

    Raises:
        OSError: it is a link, or something else than a regular file.
    """
    if os.path.islink(path):
        raise OSError(f"{path} is a symbolic link, which staging never makes; fix: remove it")
    return safe_paths.open_below(path, flags, 0o644)


def take_over(path: str) -> None:
    """Make a file this user's (root's), readable by all and writable by nobody else.

    Raises:
        OSError: it is no regular file, or has a second name, under which it may be another's.
    """
    handle = open_own(path, os.O_RDWR)
    try:
        if os.fstat(handle).st_uid != os.geteuid():
            os.fchown(handle, os.geteuid(), os.getegid())
        os.fchmod(handle, 0o644)
    finally:
        os.close(handle)


def in_parallel(work: Callable[[str], Any], items: Iterable[str]) -> dict[str, Any]:
    """Run a function that mostly hashes or waits for the disk on many files at once; return item -> result."""
    names = list(items)
    # Two threads more than cores: the cores keep hashing while some wait for the disk.
    with ThreadPoolExecutor((os.cpu_count() or 1) + 2) as pool:
        return dict(zip(names, pool.map(work, names)))


def verify(directory: str, files: dict[str, Any]) -> dict[str, str]:
    """Read files and return {path: why} of those that are not what they should be.

    Args:
        directory: of the revision.
        files: path -> {size, sha256}.
    """

    def one(path: str) -> str:
        try:
            actual = whole_files.sha256(inside(directory, path))
        except FileNotFoundError:
            return "missing"
        return "" if actual == files[path]["sha256"] else f"its SHA-256 is {actual}"

    # Largest first: the last thread must not start a shard when the others have finished.
    ordered = sorted(files, key=lambda path: -int(files[path]["size"]))
    return {path: why for path, why in in_parallel(one, ordered).items() if why}


class Stamps:
    """Which files were verified, recorded on the disk as the set grows."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.known: dict[str, Any] = whole_files.read_object(os.path.join(directory, VERIFIED))
        self._lock = threading.Lock()

    def trusts(self, path: str, sha256: str) -> bool:
        """Whether a file is unchanged since it was verified with this digest."""
        try:
            status = os.lstat(os.path.join(self.directory, path))
        except OSError:
            return False
        return bool(self.known.get(path) == [*stamp(status), sha256])

    def add(self, path: str, sha256: str) -> None:
        """Record a file as verified now."""
        with self._lock:
            self.known[path] = [*stamp(os.lstat(os.path.join(self.directory, path))), sha256]
            self._write()

    def drop(self, path: str) -> None:
        """Forget a file: it must be read again."""
        with self._lock:
            if self.known.pop(path, None):
                self._write()

    def _write(self) -> None:
        whole_files.write_whole(os.path.join(self.directory, VERIFIED), json.dumps(self.known).encode())


def finish(directory: str, manifest: dict[str, Any], chunks: dict[str, list[str]], chunk: int) -> list[str]:
    """Write the records that make a revision complete, remove stray files, and return their paths.

    Args:
        directory: of the revision; every file of the manifest is verified.
        manifest: to write.
        chunks: path -> SHA-256 of each chunk.
        chunk: bytes of one.
    """
    removed = sorted(path for path in walk(directory) if path not in manifest["files"])
    for path in removed:
        safe_paths.remove_file(os.path.join(directory, path))
    for place, _, _ in os.walk(directory, topdown=False):
        if place != directory and not os.listdir(place):
            os.rmdir(place)
    packed = {path: base64.b64encode(bytes.fromhex("".join(list_))).decode() for path, list_ in chunks.items()}
    whole_files.write_whole(os.path.join(directory, CHUNKS), json.dumps({"chunk": chunk, "files": packed}).encode())
    whole_files.write_whole(os.path.join(directory, MANIFEST), (json.dumps(manifest, indent=1) + "\n").encode())
    return removed


def listing_digest(files: dict[str, Any]) -> str:
    """Return one digest for path -> {size, sha256}: equal on two hosts if and only if their files are."""
    rows = sorted([path, entry["size"], entry["sha256"]] for path, entry in files.items())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
