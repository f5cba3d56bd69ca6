"""Remove what muster made on this host: of some groups, or everything. Nothing of theirs may run any more."""

from __future__ import annotations

import contextlib
import grp
import os
from typing import Any

from muster.on_host import (
    change_record,
    host_before,
    path_users,
    places,
    removable,
    run_command,
    safe_paths,
    systemd_units,
)

Json = dict[str, Any]

_STOPPED = ("inactive", "failed", "")
_SECONDS = 120


def main(request: Json) -> Json:
    """Remove it and return {removed: [path], notes: [text]}; what is gone already is no error.

    Args:
        request: as for `muster.on_host.removable`, and `fence`: the change that this is a step of. With `at` (tests) no
            tool of the system is run.

    Raises:
        OSError: something still runs, or cannot be removed; what is removed by then stays removed.
    """
    at, there = request.get("at", ""), removable.find(request)
    change_record.require(request.get("fence"), at)
    everything, notes = request["groups"] is None, list[str]()
    if not at:
        _require_stopped(there, request["root"] if everything else None)
        _forget_units(there)
        if everything:
            notes += host_before.restore_settings()
    # The record of the removal goes last: until then whoever comes next knows that it was cut.
    for path in sorted(there.paths, key=lambda path: path.startswith(places.ETC + "/")):
        safe_paths.remove_below(at + path)
    for path in there.empty:
        _remove_empty(at + path)
        if os.path.isdir(at + path) and path not in places.SHARED_DIRECTORIES:
            notes.append(f"{path} stays: {_what_is_in(at + path)}")
    if not at:
        systemd_units.daemon_reload()
        if everything:
            notes += _remove_user(there)
    return {"removed": there.paths, "notes": notes}


def _require_stopped(there: removable.Removable, root: str | None) -> None:
    """Refuse to take away what runs.

    Args:
        there: what goes.
        root: directory of engines and tools when they go as well.

    Raises:
        OSError: units or processes that run.
    """
    states = systemd_units.states(places.of_systemd(there.units))
    running = [name for name, unit in states.items() if unit["active"] not in _STOPPED]
    running += path_users.processes_of(root + "/") if root is not None else []
    if running:
        raise OSError(f"{', '.join(running)} still runs; nothing was removed; fix: stop it, then run again")


def _forget_units(there: removable.Removable) -> None:
    """Have systemd forget the units, and take the firewall's tables away, before their files go."""
    units = places.of_systemd(there.units)
    if units:
        run_command.must(["systemctl", "disable", "--quiet", "--", *units], _SECONDS)
        run_command.run(["systemctl", "reset-failed", "--", *units])
    if places.MEASURE in units:
        run_command.must(["systemctl", "clean", "--what=runtime", "--", places.MEASURE], _SECONDS)
    for group in there.groups:
        firewall = places.firewall_unit(group)
        if os.path.exists(places.FIREWALL_UNIT):
            run_command.must(["systemctl", "stop", "--", firewall], _SECONDS)
            run_command.run(["systemctl", "reset-failed", "--", firewall])


def _remove_empty(path: str) -> None:
    with contextlib.suppress(OSError), safe_paths.parent(path) as (handle, name):
        os.rmdir(name, dir_fd=handle)


def _what_is_in(path: str) -> str:
    names = sorted(os.listdir(path))
    if not names:
        return "it is the root of a file system" if os.path.ismount(path) else "it could not be removed"
    return f"it holds {', '.join(names[:5])}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _remove_user(there: removable.Removable) -> list[str]:
    """Remove the engine's user and group, unless they are somebody else's or still own files."""
    owned = removable.owned(there)
    if not removable.user_is_ours():
        return [] if removable.user_id() is None else [f"user {places.USER} stays: muster did not make it"]
    if owned:
        return [f"user {places.USER} stays: {', '.join(owned)} belongs to it"]
    run_command.must(["userdel", places.USER])
    with contextlib.suppress(KeyError):
        if not grp.getgrnam(places.USER).gr_mem:
            run_command.must(["groupdel", places.USER])
    return []
