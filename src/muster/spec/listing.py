"""The files of a revision, each with size and SHA-256."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from muster.errors import Refusal, literal
from muster.on_host.transfer_store import PART, WAN, is_commit, listing_digest

_SHA256 = re.compile(r"[0-9a-f]{64}")
CONFIG, CONFIG_LIMIT = "config.json", 1 << 18
"""The model's own configuration: its file, and the most bytes of it that a pin keeps."""
_MOST_FILES, _LONGEST_PATH, _LARGEST = 100_000, 1024, 1 << 50


@dataclass(frozen=True)
class Entry:
    """One file: its path inside the repository, bytes, and SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Listing:
    """One revision of one model.

    Args:
        model: `organisation/name`.
        revision: commit of 40 hexadecimal digits.
        origin: where the listing was read: `hub`, `modelscope` or a directory.
        files: sorted by path.
        config: what the model's config.json holds, where the listing's origin gave it.
    """

    model: str
    revision: str
    origin: str
    files: tuple[Entry, ...]
    config: Mapping[str, Any] | None = None

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights that the engine loads, 0 where there are none: some repositories hold them twice."""
        top = {entry.path: entry.size for entry in self.files if entry.path.endswith(".safetensors")}
        shards = {path: size for path, size in top.items() if re.fullmatch(r"model(-[0-9]+-of-[0-9]+)?[^/]*", path)}
        single = {path: size for path, size in top.items() if "/" not in path}
        return sum((shards or single).values())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    @property
    def digest(self) -> str:
        """One digest of all files: equal on two hosts if and only if their files are."""
        return listing_digest({entry.path: {"size": entry.size, "sha256": entry.sha256} for entry in self.files})

    def as_data(self) -> dict[str, Any]:
        """Return plain data, for a pin file and for the hosts' programs."""
        files = [{"path": e.path, "size": e.size, "sha256": e.sha256} for e in self.files]
        config = {"config": self.config} if self.config is not None else {}
        return {"model": self.model, "revision": self.revision, "origin": self.origin, **config, "files": files}


def parse(data: object, *, where: str) -> Listing:
    """Read a listing from plain data; what is written passes through here too.

    Args:
        data: as `Listing.as_data` gives it.
        where: file or host that says so, for messages.

    Raises:
        Refusal: no commit, a path that leads out of the directory or collides with another, a malformed size or digest.
    """
    if not isinstance(data, Mapping):
        raise Refusal(f"{where}: holds no listing", needed="what `muster pin` writes", fix="pin again")
    model, revision, rows = data.get("model"), data.get("revision"), data.get("files", ())
    if not isinstance(model, str) or not model.isprintable() or not 0 < len(model) <= _LONGEST_PATH:
        raise Refusal(f"{where}: model is {literal(model)}", needed="organisation/name", fix="pin again")
    check_commit(revision, where=where)
    if not isinstance(rows, (list, tuple)) or len(rows) > _MOST_FILES:
        raise Refusal(f"{where}: files is no list", needed=f"at most {_MOST_FILES} files", fix="pin again")
    entries = tuple(sorted((_entry(row, where) for row in rows), key=lambda entry: entry.path))
    if not entries:
        raise Refusal(f"{where}: names no file", needed="the files of the model", fix="pin again")
    _check_together(entries, where)
    origin = data.get("origin", "")
    config = data.get("config")
    if config is not None and not (isinstance(config, Mapping) and len(json.dumps(config)) <= CONFIG_LIMIT):
        raise Refusal(
            f"{where}: config is no config.json", needed=f"a mapping of at most {CONFIG_LIMIT:,} bytes", fix="pin again"
        )
    return Listing(model, str(revision), origin if isinstance(origin, str) else "", entries, config)


def check_commit(revision: object, *, where: str) -> None:
    """Refuse a revision that can move.

    Raises:
        Refusal: it is no commit.
    """
    if not is_commit(revision):
        raise Refusal(f"{where}: revision is {literal(revision)}", needed="40 hexadecimal digits", fix="pin again")


def check_path(path: str, *, where: str) -> None:
    """Refuse a path that is not one of a file inside the repository.

    Raises:
        Refusal: it leads out, cannot be printed, or is a name that staging uses for itself.
    """
    parts = PurePosixPath(path)
    inside = not parts.is_absolute() and ".." not in parts.parts and str(parts) == path and path not in ("", ".")
    own = parts.name.startswith(".muster-") or path.endswith((PART, WAN))
    if not inside or own or not path.isprintable() or len(path) > _LONGEST_PATH or not _encodes(path):
        raise Refusal(
            f"{where}: {literal(path)} is an impossible path",
            needed="the path of a file inside the repository",
            fix="pin again, and look at who wrote this",
        )


def _entry(row: object, where: str) -> Entry:
    if not isinstance(row, Mapping) or not {"path", "size", "sha256"} <= row.keys():
        raise Refusal(f"{where}: {literal(row)} is no file", needed="path, size, sha256", fix="pin again")
    path, size, sha256 = row["path"], row["size"], row["sha256"]
    if not isinstance(path, str):
        raise Refusal(f"{where}: {literal(row)} is no file", needed="path, size, sha256", fix="pin again")
    check_path(path, where=where)
    digest_fits = isinstance(sha256, str) and bool(_SHA256.fullmatch(sha256))
    if not digest_fits or not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST:
        raise Refusal(
            f"{where}: {path} has an impossible size or digest: {literal(size)}, {literal(sha256)}",
            needed="bytes, and 64 hexadecimal digits",
            fix="pin again, and look at who wrote this",
        )
    return Entry(path, size, sha256)


def _check_together(entries: tuple[Entry, ...], where: str) -> None:
    """Refuse two files of one path, and a file where another needs a directory."""
    paths = {entry.path for entry in entries}
    for entry in entries:
        clash = next((str(each) for each in PurePosixPath(entry.path).parents if str(each) in paths), None)
        if clash or len(paths) != len(entries):
            raise Refusal(
                f"{where}: " + (f"{clash} is a file and a directory" if clash else "a file is named twice"),
                needed="every file once",
                fix="pin again, and look at who wrote this",
            )


def _encodes(path: str) -> bool:
    try:
        return all(len(part) <= 200 for part in path.encode().split(b"/"))
    except UnicodeEncodeError:
        return False
