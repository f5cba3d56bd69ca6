"""What this host knows of changes of a group: the lock of the one that is going on, the record of one that was cut.

The lock is a flock on a file of root's: it ends with the process that holds it, and with the host. The record is on
disk, so that it outlives both.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

from muster.on_host import mutex, places, safe_paths, whole_files

Json = dict[str, Any]

RECORD, WAY, PROGRAM = "change.json", "return.json", "return.py"
LIMIT = 16384
_PROBED = 2.0
"""Seconds: a probe holds a lock for an instant, to see whether it is free."""


def lock_path(group: str, root: str = "") -> str:
    """Return the path of a group's lock, which also says for which change it is held."""
    return f"{root}{places.CHANGES}/{group}.lock"


def groups(root: str = "") -> list[str]:
    """Return the groups that have had a lock here since this host has booted."""
    return [name[: -len(".lock")] for name in safe_paths.names_in(root + places.CHANGES) if name.endswith(".lock")]


def record_path(group: str, root: str = "") -> str:
    """Return the path of the record of a change that has touched what runs."""
    return f"{root}{places.config(group)}/{RECORD}"


def way_path(group: str, root: str = "") -> str:
    """Return the path of what a host needs to end the recorded change by itself: `return_change` reads it."""
    return f"{root}{places.config(group)}/{WAY}"


def program_path(group: str, root: str = "") -> str:
    """Return the path of the program that does it."""
    return f"{root}{places.config(group)}/{PROGRAM}"


def own_files(group: str) -> tuple[str, ...]:
    """Return the files in a group's directory that are of the change that is going on, or was cut, and of no plan."""
    return record_path(group), way_path(group), program_path(group)


def state(group: str, root: str = "") -> Json:
    """Return {locked, holder, record, installed}: what `plan.change.Found` is made of."""
    locked, holder = held(group, root)
    return {
        "locked": locked,
        "holder": holder,
        "record": whole_files.read_object(record_path(group, root), LIMIT),
        "installed": installed(group, root),
    }


def installed(group: str, root: str = "") -> str:
    """Return the digest of the plan whose files are in place; "" for none."""
    digest = whole_files.read_object(f"{root}{places.config(group)}/plan.json").get("digest")
    return digest[:100] if isinstance(digest, str) else ""


def held(group: str, root: str = "") -> tuple[bool, Json]:
    """Return whether a live process holds a group's lock, and for which change by its own words."""
    path = lock_path(group, root)
    try:
        lock = safe_paths.open_below(path)
    except OSError:
        return False, {}
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False, {}
    except BlockingIOError:
        return True, whole_files.read_object(path, LIMIT)
    finally:
        os.close(lock)


@contextlib.contextmanager
def locked(group: str, change: Json, root: str = "") -> Iterator[int]:
    """Hold a group's lock for a change.

    Args:
        group: its name.
        change: the record, which the lock then shows.
        root: where the file system begins, for tests.

    Raises:
        BlockingIOError: another process holds it.
    """
    safe_paths.make_directory(root + places.CHANGES, 0o700)
    with mutex.attempted(lock_path(group, root), _PROBED) as lock:
        show(lock, change)
        yield lock
        os.ftruncate(lock, 0)


def show(lock: int, change: Json) -> None:
    """Write into a held lock for which change it is held."""
    data = json.dumps(change).encode()
    os.pwrite(lock, data, 0)
    os.ftruncate(lock, len(data))


def require(fence: Json | None, root: str = "") -> None:
    """Refuse a step of a change whose lock this host no longer holds: somebody else may have taken over.

    Args:
        fence: `group` and `change` (its id); None for a step that no change protects.
        root: where the file system begins, for tests.

    Raises:
        OSError: the lock is free, or held for another change.
    """
    if not fence:
        return
    alive, holder = held(fence["group"], root)
    if not alive or holder.get("id") != fence["change"]:
        whose = "{}@{} holds it".format(holder.get("who"), holder.get("origin")) if alive else "nobody holds it"
        raise OSError(
            f"this run has lost the lock of group {fence['group']} ({whose}); nothing more was done on this host;"
            " fix: look at `muster status`, then run again"
        )


def write(group: str, change: Json, root: str = "") -> None:
    """Put a record on disk, so that a power cut finds the one before or this one.

    Raises:
        OSError: a full disk; the one before is untouched.
    """
    path = record_path(group, root)
    safe_paths.make_directory(os.path.dirname(path))
    whole_files.write_whole(path, (json.dumps(change, indent=1) + "\n").encode())


def exchange(fence: Json | None, root: str = "") -> None:
    """Record that this host begins to put files in place: from here on it has neither plan's files whole.

    Args:
        fence: as for `require`; nothing is recorded for a step of no change.
        root: where the file system begins, for tests.

    Raises:
        OSError: a full disk; no file was put in place.
    """
    if fence:
        record = whole_files.read_object(record_path(fence["group"], root), LIMIT)
        if record.get("id") == fence["change"] and not record.get("exchanging"):
            write(fence["group"], {**record, "exchanging": "yes"}, root)


def remove(group: str, root: str = "") -> None:
    """Remove the record: the change has ended."""
    if safe_paths.remove_file(record_path(group, root)):
        whole_files.sync_directory(os.path.dirname(record_path(group, root)))
