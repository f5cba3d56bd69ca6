"""Where the seed's files come from: a hub, ModelScope, or a directory that this host can read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from muster.host import weights_store as store


def fetch(
    source: dict[str, Any], listing: dict[str, Any], lacking: list[dict[str, Any]], directory: str
) -> Iterator[str]:
    """Bring files as `<path>.muster-wan`, going on from what is there, and yield each path when it has all its bytes.

    Args:
        source: `kind` (`hub`, `modelscope`, `directory`, `none`) and what that kind needs.
        listing: of the revision.
        lacking: entries to fetch.
        directory: of the revision.

    Raises:
        OSError: what the source answered, and what to do.
    """
    for entry in lacking:
        os.makedirs(os.path.dirname(store.inside(directory, entry["path"])), 0o755, exist_ok=True)
    if source["kind"] == "directory":
        yield from _copied(source["path"], lacking, directory)
    else:
        raise OSError(f"files are missing and there is no source for them: {lacking[0]['path']}, …")


def arrived(directory: str, files: list[dict[str, Any]]) -> int:
    """Return the bytes of files that are still coming from outside."""
    total = 0
    for entry in files:
        try:
            total += os.path.getsize(os.path.join(directory, entry["path"]) + store.WAN)
        except OSError:
            continue
    return total


def _copied(origin: str, lacking: list[dict[str, Any]], directory: str) -> Iterator[str]:
    """Copy from a directory of this host, such as a shared file system."""
    for entry in lacking:
        path = store.inside(directory, entry["path"]) + store.WAN
        try:
            with open(os.path.join(origin, entry["path"]), "rb", buffering=0) as given, open(path, "ab") as taken:
                given.seek(taken.tell())
                while True:
                    data = given.read(store.CHUNK)
                    if not data:
                        break
                    taken.write(data)
        except OSError as error:
            raise OSError(f"cannot copy {entry['path']} from {origin}: {error.strerror}") from None
        yield entry["path"]
        time.sleep(0)
