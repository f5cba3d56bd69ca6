"""The files of a revision, each with size and SHA-256."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from muster.errors import Refusal
from muster.on_host.transfer_store import listing_digest

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
    """

    model: str
    revision: str
    origin: str
    files: tuple[Entry, ...]

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
        return {"model": self.model, "revision": self.revision, "origin": self.origin, "files": files}


def parse(data: object, *, where: str) -> Listing:
    """Read a listing from plain data.

    Args:
        data: as `Listing.as_data` gives it.
        where: file name, for messages.

    Raises:
        Refusal: a path that leads out of the directory, no commit, or a malformed digest.
    """
    if not isinstance(data, Mapping):
        raise Refusal(f"{where}: holds no listing", needed="what `muster pin` writes", fix="pin again")
    revision, model = str(data.get("revision")), str(data.get("model"))
    if not _COMMIT.fullmatch(revision):
        raise Refusal(f"{where}: revision is '{revision}'", needed="40 hexadecimal digits", fix="pin again")
    entries = []
    for row in data.get("files", ()):
        try:
            entry = Entry(str(row["path"]), int(row["size"]), str(row["sha256"]))
        except (KeyError, TypeError, ValueError):
            raise Refusal(f"{where}: {row!r} is no file", needed="path, size, sha256", fix="pin again") from None
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or str(path) != entry.path or not _SHA256.fullmatch(entry.sha256):
            raise Refusal(
                f"{where}: {entry.path!r} has an impossible path or digest",
                needed="a path inside the repository and 64 hexadecimal digits",
                fix="pin again, and look at who wrote this file",
            )
        entries.append(entry)
    if not entries:
        raise Refusal(f"{where}: names no file", needed="the files of the model", fix="pin again")
    return Listing(model, revision, str(data.get("origin", "")), tuple(sorted(entries, key=lambda entry: entry.path)))
