"""Remove engine releases that nothing on this host needs: no plan names them, and they are not the one before."""

from __future__ import annotations

import os
from typing import Any

from muster.on_host import disk_usage, engine_stamps, mutex, path_users, safe_paths

Json = dict[str, Any]

_LOCK, _RESOLUTION = ".lock", ".locked"
"""What lies beside the environment of a release, after its name."""


def main(request: Json) -> Json:
    """Return {removed: {release: bytes}, kept: {release: why}}.

    Args:
        request: `engines` (the directory of all releases), `running` (the release whose deploy was just verified).
            `etc`, `proc` (tests): where units and processes are searched.
    """
    engines, kept = request["engines"], {request["running"]: "runs"}
    unused = {}
    for name in releases(engines):
        if name in kept:
            continue
        path = os.path.join(engines, name)
        users = path_users.users_of(path, request.get("etc", "/etc"), request.get("proc", "/proc"))
        if users:
            kept[name] = users[0]
        else:
            unused[name] = _completed(engines, name)
    newest = max(unused, key=lambda name: (unused[name], name), default="")
    if unused.get(newest):
        del unused[newest]
        kept[newest] = "the one before"
    removed = {}
    for name in unused:
        size = disk_usage.bytes_of([os.path.join(engines, name)])
        if _remove(engines, name):
            removed[name] = sum(size.values())
        else:
            kept[name] = "another session installs it"
    return {"removed": removed, "kept": kept}


def releases(engines: str) -> list[str]:
    """Return the names of all releases in a directory, whole or not."""
    names = safe_paths.names_in(engines)
    return sorted({name.removesuffix(_LOCK).removesuffix(_RESOLUTION) for name in names})


def _completed(engines: str, name: str) -> float:
    """Return when the installation of a release was completed; 0 where it never was."""
    try:
        return os.lstat(os.path.join(engines, name, engine_stamps.COMPLETE)).st_mtime
    except OSError:
        return 0.0


def _remove(engines: str, name: str) -> bool:
    """Remove a release with its resolution, unless a session holds its lock."""
    path = os.path.join(engines, name)
    try:
        with mutex.attempted(path + _LOCK):
            # The note goes first: an interrupted removal leaves nothing that looks complete.
            safe_paths.remove_file(os.path.join(path, engine_stamps.COMPLETE))
            safe_paths.remove_below(path)
            safe_paths.remove_below(path + _RESOLUTION)
            safe_paths.remove_file(path + _LOCK)
            return True
    except BlockingIOError:
        return False
