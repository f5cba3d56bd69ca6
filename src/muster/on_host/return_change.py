"""Bring a host's ranks back that a change stopped and nobody came to finish: a timer of the host runs this.

The head decides by its own record alone, for it is the last to record that files are being exchanged (`committing`). A
member whose record leaves that open starts what is in place, and follows the head if that carries the new plan.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

from muster.on_host import ask_guard, change_record, place_files, places, run_command, systemd_units, whole_files

Json = dict[str, Any]

_EVERY = 30
"""Seconds between two attempts."""
_STOPPED = ("stopping", "committing", "committed")


def left_alone(phase: str, *, is_head: bool, head_carries: str, after: str) -> str:
    """Decide what a host does whose change was cut. Pure.

    Args:
        phase: of its record; "" without one.
        is_head: whether it is the group's head.
        head_carries: digest of the head's plan, as far as this host's guard knows; "" where it does not.
        after: digest of the plan that was to run.

    Returns:
        `nothing`: no rank was stopped, or somebody has finished it; `start` what is in place; `forward`: put the staged
        files in place and start them; `follow`: start what is in place once, and look again, for the head may go
        forward.
    """
    if phase not in _STOPPED:
        return "nothing"
    if phase != "committing":
        return "start"
    return "forward" if is_head or (head_carries and head_carries == after) else "follow"


def main(request: Json) -> Json:
    """Do one attempt; the last one ends the timer.

    Args:
        request: `group`, `change` (id), `is_head`, `units` [name] of both plans, `commit`: request of `place_files`.
            `root` (tests).
    """
    group, root = request["group"], request.get("root", "")
    record = whole_files.read_object(change_record.record_path(group, root), change_record.LIMIT)
    if record.get("id") != request["change"]:
        disarm(group, root)
        return {"did": "nothing"}
    try:
        with change_record.locked(group, record | {"who": "host", "origin": os.uname().nodename}, root):
            did = _return(request, record, root)
    except BlockingIOError:
        return {"did": "wait"}  # whoever changes the group is alive
    if did != "follow":
        disarm(group, root)
    return {"did": did}


def _return(request: Json, record: Json, root: str) -> str:
    after = str(record.get("after"))
    carries = _head_carries(request["group"], after) if record.get("returned") else ""
    did = left_alone(str(record.get("phase")), is_head=request["is_head"], head_carries=carries, after=after)
    if did == "nothing" or (did == "follow" and record.get("returned")):
        return did
    if did == "forward" and change_record.installed(request["group"], root) != after:
        if record.get("returned"):
            _systemctl(["stop"], request["units"], root)
        # Another run may have staged its own files since: then what is in place is all there is to start.
        with contextlib.suppress(OSError):
            place_files.commit(request["commit"], root)
    # The change may have been cut between a rename and the reload.
    systemd_units.daemon_reload()
    _systemctl(["start", "--no-block"], request["units"], root)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    change_record.write(request["group"], {**record, "returned": now}, root)
    return did


def _head_carries(group: str, after: str) -> str:
    """Return the new plan's digest if this host's guard has heard that the head carries it; "" otherwise."""
    with contextlib.suppress(OSError):
        member = ask_guard.main({"group": group, "command": "status"})["answer"].get("member") or {}
        if after and f"carries {after[:12]}; " in str(member.get("head_reason") or ""):
            return after
    return ""


def _systemctl(verb: list[str], units: list[str], root: str) -> None:
    there = [unit for unit in units if os.path.exists(root + places.unit(unit))]
    if there:
        run_command.must(["systemctl", *verb, "--", *there], 600)


def unit(group: str) -> str:
    """Return the name of the unit that brings a host back; no group's own unit has an `@` in it."""
    return f"muster-return@{group}"


def program_path(group: str, root: str = "") -> str:
    """Return where the program of that unit is kept until the change has ended."""
    return f"{root}{places.CHANGES}/{group}.return"


def arm(group: str, seconds: float, root: str = "") -> None:
    """Start the timer: after `seconds`, and then again and again, this program runs.

    Raises:
        OSError: systemd does not take it.
    """
    if root:
        return
    _stop_timer(group)
    name = unit(group)
    timer = [f"--on-active={seconds:.0f}", f"--on-unit-inactive={_EVERY}", "--timer-property=AccuracySec=1s"]
    description = f"--description=Bring group {group} back after a change that was cut"
    command = [sys.executable, "-IS", program_path(group)]  # the Python that this program was found fit for
    run_command.must(["systemd-run", "--quiet", f"--unit={name}", description, *timer, "--", *command], 60)


def disarm(group: str, root: str = "") -> None:
    """Stop the timer, and forget its program; nothing where there is none."""
    if not root:
        _stop_timer(group)
    with contextlib.suppress(OSError):
        os.unlink(program_path(group, root))


def _stop_timer(group: str) -> None:
    run_command.run(["systemctl", "stop", f"{unit(group)}.timer"], 60)
    run_command.run(["systemctl", "reset-failed", f"{unit(group)}.service"], 60)
