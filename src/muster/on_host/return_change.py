"""End a change by the host itself when it was cut and nobody came to finish it: a timer of the host runs this.

The timer is in memory; a unit that stays enabled while the change lasts starts it again after a reboot.

The head decides by its own record alone, for it is the last to record that files are exchanged (`committing`). A member
that has begun its exchange knows by that alone that the head has recorded it. One that has not begun starts what is in
place, and follows the head if that carries the new plan.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from typing import Any

from muster.on_host import (
    ask_guard,
    change_record,
    place_files,
    places,
    restore_plan,
    run_command,
    safe_paths,
    systemd_units,
    whole_files,
)

Json = dict[str, Any]

_EVERY = 30
"""Seconds between two attempts."""
_WAY_LIMIT = 8 << 20
_STOPPED = ("stopping", "committing", "committed")
_BOOT_UNIT = """\
{mark}: it is here while a change of group {group} goes on, or was cut.
[Unit]
Description=Bring group {group} back after a change that was cut by a reboot

[Service]
Type=oneshot
ExecStart={command}

[Install]
WantedBy=multi-user.target
"""


def left_alone(phase: str, *, is_head: bool, exchanging: bool, head_carries: str, after: str) -> str:
    """Decide what a host does whose change was cut. Pure.

    Args:
        phase: of its record; "" without one.
        is_head: whether it is the group's head.
        exchanging: whether this host has begun to put files in place.
        head_carries: digest of the head's plan, as far as this host's guard knows; "" where it does not.
        after: digest of the plan that was to run.

    Returns:
        `nothing`: no rank was stopped, or somebody has finished it; `start` what is in place; `forward`: put the files
        of the change in place and start them; `follow`: start what is in place once, and look again, for the head may
        go forward.
    """
    if phase not in _STOPPED:
        return "nothing"
    if phase != "committing":
        return "start"
    return "forward" if is_head or exchanging or (head_carries and head_carries == after) else "follow"


def main(request: Json) -> Json:
    """Do one attempt; the last one ends the timer.

    Args:
        request: `group`, `change` (id); `root` (tests). The rest is read from `return.json`: `is_head`, `units` [name]
            of both plans, what puts the new plan in place (`commit`, a request of `place_files`, or `kept`, the digest
            of a kept plan), `after` (seconds until the first attempt).
    """
    group, root = request["group"], request.get("root", "")
    try:
        host = _record(group, root) | {"who": "host", "origin": os.uname().nodename}
        with change_record.locked(group, host, root):
            record, way = _record(group, root), _way(group, root)
            if record.get("id") != request["change"] or not way:
                disarm(group, root)
                return {"did": "nothing"}
            did = _return(group, way, record, root)
    except BlockingIOError:
        return {"did": "wait"}  # whoever changes the group is alive
    if did != "follow":
        _stop_timer(group, root)
    return {"did": did}


def _return(group: str, way: Json, record: Json, root: str) -> str:
    after, exchanging = str(record.get("after")), bool(record.get("exchanging"))
    carries = _head_carries(group, after, root) if record.get("returned") else ""
    did = left_alone(
        str(record.get("phase")),
        is_head=way["is_head"],
        exchanging=exchanging,
        head_carries=carries,
        after=after,
    )
    if did == "nothing" or (did == "follow" and record.get("returned")):
        return did
    if did == "forward":
        _systemctl(["stop"], way["units"], root)
        try:
            put_in_place(group, way, record, root)
        except OSError:
            if exchanging:
                raise
            # Another run has staged its own files since: then what is in place is whole, and all there is to start.
            did = "start"
        record = _record(group, root)
    # The change may have been cut between a rename and the reload.
    if not root:
        systemd_units.daemon_reload()
        # What a reboot has started may be of files that another run has put in place since.
        installed = change_record.installed(group, root)
        others = [
            unit for unit, now in systemd_units.states(way["units"]).items() if now["digest"] not in (None, installed)
        ]
        _systemctl(["stop"], others, root)
    _systemctl(["start", "--no-block"], way["units"], root)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    change_record.write(group, {**record, "returned": now}, root)
    return did


def put_in_place(group: str, way: Json, record: Json, root: str) -> None:
    """Put every file of a change in place, from wherever it was cut, and record it as committed on this host.

    Raises:
        OSError: its files are no longer there.
    """
    if way.get("kept"):
        restore_plan.main({"do": "commit", "group": group, "digest": way["kept"], "root": root})
    else:
        place_files.complete(way["commit"], root)
    change_record.write(group, {**record, "phase": "committed", "exchanging": ""}, root)


def settle(group: str, forward: bool, root: str = "") -> None:
    """End the exchange of an earlier change on this host, under the lock of a newer one.

    Args:
        group: its name.
        forward: put the files of that change in place; else none of them is, on any host, and none will be.
        root: where the file system begins, for tests.

    Raises:
        OSError: the files are no longer there.

    What runs may be of other files than are in place then: the timer, which may have ended, starts what is in place.
    """
    record, way = _record(group, root), _way(group, root)
    if record.get("phase") != "committing" or not way:
        return
    _start_timer(group, way["after"], root)
    if forward:
        put_in_place(group, way, record, root)
    else:
        change_record.write(group, {**record, "phase": "stopping"}, root)


def _record(group: str, root: str) -> Json:
    return whole_files.read_object(change_record.record_path(group, root), change_record.LIMIT)


def _way(group: str, root: str) -> Json:
    return whole_files.read_object(change_record.way_path(group, root), _WAY_LIMIT)


def _head_carries(group: str, after: str, root: str) -> str:
    """Return the new plan's digest if this host's guard has heard that the head carries it; "" otherwise."""
    with contextlib.suppress(OSError):
        status = {} if root else ask_guard.main({"group": group, "command": "status"})["answer"]
        if after and f"carries {after[:12]}; " in str((status.get("member") or {}).get("head_reason") or ""):
            return after
    return ""


def _systemctl(verb: list[str], units: list[str], root: str) -> None:
    there = [unit for unit in units if os.path.exists(root + places.unit(unit))]
    if there and not root:
        run_command.must(["systemctl", *verb, "--", *there], 600)


def unit(group: str) -> str:
    """Return the name of the unit that brings a host back; no group's own unit has an `@` in it."""
    return f"muster-return@{group}"


def arm(group: str, back: Json, root: str = "") -> None:
    """Have the host end the change by itself: keep how, and start the timer, now and after a reboot.

    Args:
        group: its name.
        back: `way` (what `main` reads), `program` (this one), `after` (seconds until its first attempt).
        root: where the file system begins, for tests.

    Raises:
        OSError: a full disk, or systemd does not take it.
    """
    way, program = change_record.way_path(group, root), change_record.program_path(group, root)
    safe_paths.make_directory(os.path.dirname(way))
    whole_files.write_whole(way, json.dumps({**back["way"], "after": back["after"]}).encode(), 0o600)
    whole_files.write_whole(program, back["program"].encode(), 0o600)
    if not root:
        boot = places.unit(places.boot_unit(group))
        command = shlex.join(_timer_command(group, back["after"]))
        whole_files.write_whole(boot, _BOOT_UNIT.format(mark=places.MARK, group=group, command=command).encode())
        safe_paths.make_directory(os.path.dirname(_wants(group)))
        with contextlib.suppress(FileExistsError):
            os.symlink(boot, _wants(group))
    _start_timer(group, back["after"], root)


def _start_timer(group: str, seconds: float, root: str) -> None:
    _stop_timer(group, root)
    if not root:
        run_command.must(_timer_command(group, seconds), 60)


def _timer_command(group: str, seconds: float) -> list[str]:
    timer = [f"--on-active={seconds:.0f}", f"--on-unit-inactive={_EVERY}", "--timer-property=AccuracySec=1s"]
    description = f"--description=Bring group {group} back after a change that was cut"
    program = [sys.executable, "-IS", change_record.program_path(group)]  # the Python this program was found fit for
    run = shutil.which("systemd-run") or "systemd-run"
    return [run, "--quiet", f"--unit={unit(group)}", description, *timer, "--", *program]


def _wants(group: str) -> str:
    return f"{places.UNITS}/multi-user.target.wants/{places.boot_unit(group)}"


def disarm(group: str, root: str = "") -> None:
    """Stop the timer, and forget how to end the change; nothing where there is none."""
    _stop_timer(group, root)
    if not root:
        gone = [safe_paths.remove_file(path) for path in (_wants(group), places.unit(places.boot_unit(group)))]
        if any(gone):
            run_command.run(["systemctl", "daemon-reload"], 120)  # else systemd shows it on until the next one
    for path in (change_record.way_path(group, root), change_record.program_path(group, root)):
        safe_paths.remove_file(path)


def _stop_timer(group: str, root: str = "") -> None:
    if not root:
        run_command.run(["systemctl", "stop", f"{unit(group)}.timer"], 60)
        run_command.run(["systemctl", "reset-failed", f"{unit(group)}.service"], 60)
