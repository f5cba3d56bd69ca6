"""Hold the lock of a change for as long as its control machine is there, and keep the change's record.

The control machine keeps this session open and writes a line now and then. The session's end (the process there is
gone, the connection is lost) or silence (the machine is) ends this program, and with it the lock.
"""

from __future__ import annotations

import contextlib
from typing import Any

from muster.on_host import change_record, return_change, session_lines

Json = dict[str, Any]


def main(request: Json) -> Json:
    """Take the lock, then obey lines of JSON on standard input; each is answered by one line on standard output.

    Args:
        request: `change` (the record), `groups` (whose locks are taken here, in this order; one change may be of
            several), `silence` (seconds without a line after which the locks end), `back`: as for `return_change.arm`;
            None where a cut stops nothing. `root` (tests).

    The first line out is {state} (as `change_record.state` saw the first group under the lock) or {busy: holder,
    group}. Lines in: {do: "alive"}; {do: "settle", forward}: end the exchange of the change that was recorded before;
    {do: "phase", phase}: record it; {do: "turn", change, way}: the change becomes another, which it records as it is
    there; {do: "finish"}: the change has ended, forget the record.
    """
    root, group = request.get("root", ""), ""
    locks: dict[int, Json] = {}
    with contextlib.ExitStack() as stack:
        try:
            for group in request["groups"]:
                change = {**request["change"], "group": group}
                locks[stack.enter_context(change_record.locked(group, change, root))] = change
        except BlockingIOError:
            session_lines.say({"busy": change_record.held(group, root)[1], "group": group})
            return {}
        session_lines.say({"state": change_record.state(request["groups"][0], root) | {"locked": False, "holder": {}}})
        for line in session_lines.lines(request["silence"]):
            try:
                for lock, change in locks.items():
                    _obey(line, change, request.get("back"), lock, root)
            except OSError as error:
                session_lines.say({"error": str(error)})
            else:
                session_lines.say({})
    return {}


def _obey(line: Json, change: Json, back: Json | None, lock: int, root: str) -> None:
    """Do for one group what a line says; its change is kept as it is now."""
    group = change["group"]
    if line["do"] == "settle":
        return_change.settle(group, line["forward"], root)
    elif line["do"] == "phase":
        change["phase"] = line["phase"]
        if line["phase"] == "stopping" and back is not None:
            return_change.arm(group, back, root)
        if line["phase"] == "committing" and change.get("command") == "remove" and back is not None:
            return_change.disarm(group, root)  # before its record: from here on nothing starts what is to go
        _record(change, lock, root)
        if line["phase"] == "started" and back is not None:
            return_change.disarm(group, root)
    elif line["do"] == "turn":
        change |= {**line["change"], "group": group}
        if back is not None:
            return_change.arm(group, {**back, "way": line["way"]}, root)
        _record(change, lock, root)
    elif line["do"] == "finish":
        change_record.remove(group, root)
        return_change.disarm(group, root)


def _record(change: Json, lock: int, root: str) -> None:
    change_record.write(change["group"], change, root)
    change_record.show(lock, change)
