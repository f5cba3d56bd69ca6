"""How fast this host read a revision's weights from its disk, as it was measured last; `read_rate` measures it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from muster.on_host import whole_files

SUFFIX = ".read-rate.json"
"""Of the record, beside the revision's directory: inside, an earlier muster would take it for a stray file."""
MAX_AGE = 30 * 86400
"""Seconds after which a measurement says too little of the disk as it is."""
NETWORKS = ("nfs", "nfs4", "lustre")
"""Kinds of file systems that vLLM takes for a network's (`weight_utils.py`, 0.32 and 0.33)."""
_LIMIT = 4096
_MOST = 10**13


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Return {rate: what `of` returns of the request's `directory`}."""
    return {"rate": of(request["directory"])}


def path(directory: str) -> str:
    """Return where the record of a revision is."""
    return directory.rstrip("/") + SUFFIX


def of(directory: str) -> dict[str, Any] | None:
    """Return {one, all: bytes a second of one reader and of `readers` together, readers, age: seconds}, or None.

    With `network`, the kind of file system, where that is one for which vLLM fetches files ahead.

    Args:
        directory: of the revision.
    """
    kept = whole_files.read_object(path(directory), _LIMIT)
    one, together, readers, at, device = (number(kept.get(name)) for name in ("one", "all", "readers", "at", "device"))
    age = int(time.time()) - at
    if not (one and together and readers and at) or age < 0 or device != device_of(directory):
        return None  # also where the clock was set back, or the files were moved to another disk
    network = kept.get("network")
    found: dict[str, Any] = {"one": one, "all": together, "readers": readers, "age": age}
    return {**found, "network": network} if network in NETWORKS else found


def is_fresh(kept: Mapping[str, Any] | None, readers: int) -> bool:
    """Whether a measurement stands for so many readers now."""
    return kept is not None and kept["age"] <= MAX_AGE and kept["readers"] == readers


def keep(directory: str, one: int, together: int, readers: int) -> None:
    """Keep a measurement, with the date.

    Args:
        directory: of the revision.
        one, together: bytes a second, of one reader and of all.
        readers: how many.

    Raises:
        OSError: a full disk, or a directory that is gone.
    """
    record: dict[str, Any] = {
        "one": one,
        "all": together,
        "readers": readers,
        "at": int(time.time()),
        "device": device_of(directory),
    }
    record |= {"network": kind} if (kind := file_system(directory)) in NETWORKS else {}
    whole_files.write_whole(path(directory), json.dumps(record).encode() + b"\n")


def file_system(directory: str, mountinfo: str = "/proc/self/mountinfo") -> str:
    """Return the kind of file system that a directory is on, as the kernel names it; empty where it is not found."""
    device = device_of(directory)
    if device < 0:
        return ""
    with contextlib.suppress(OSError), open(mountinfo, encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if words[2] == f"{os.major(device)}:{os.minor(device)}" and "-" in words:
                return words[words.index("-") + 1]
    return ""


def number(value: Any) -> int:
    """Return a number of a record, 0 for anything else: whoever may write there can write anything."""
    return value if type(value) is int and 0 < value < _MOST else 0


def device_of(directory: str) -> int:
    """Return the number of the disk that a directory is on; -1 where it is gone."""
    try:
        return os.stat(directory).st_dev
    except OSError:
        return -1
