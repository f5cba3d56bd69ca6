"""Ask this host's guard, by its own command line: status, failure bundles, stop, restart, resume."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from muster.on_host import change_record, kept_loaders, kept_rate, places, run_command, startable, systemd_units

Json = dict[str, Any]

_OF_STOPPED = {"resume": "release", "stop": "hold"}
_WEIGHTS_SECONDS = 30.0
_SHOWN = "ActiveState,SubState,NRestarts,ActiveEnterTimestamp"


def main(request: Json) -> Json:
    """Return {unit: {active, sub, restarts, since}, answer: the JSON of the guard's `ctl`, change}.

    Args:
        request: `group`, `command` (`status`, `logs`, `stop`, `restart`, `resume`), `wait` (seconds, for the commands
            that change something), `since` (generation, for `restart`), `by` (who gives the command) and `count` (of
            failure bundles, for `logs`).
            `resume` of a stopped unit lifts the hold that would stop it again, `stop` of one keeps it stopped when it
            starts; `absent` [host] are not waited for by `stop`. `root` (tests): where the file system
            begins.

    `status` has `change` too: what this host knows of changes of the group, also where no guard answers; and `weights`
    where daemons keep the group's weights: what their guard answers; and `rate` and `loaders` where the request names
    the `model`'s directory: how fast this host was measured to read it, and to load it.

    Raises:
        OSError: the group has no guard on this host, or its program is gone.
    """
    if request["command"] != "status":
        return _asked(request)
    change = change_record.state(request["group"], request.get("root", ""))
    besides: Json = {"change": change, "rate": None, "loaders": None}
    if request.get("model"):
        besides |= {"rate": kept_rate.of(request["model"]), "loaders": kept_loaders.of(request["model"])}
    try:
        return {**_asked(request), **_weights(request), **besides}
    except OSError as error:
        return {"answer": {"error": str(error)}, **besides}


def _asked(request: Json) -> Json:
    unit = "muster-{}.service".format(request["group"])
    root = request.get("root", "")
    config = "{}{}/guard.json".format(root, places.config(request["group"]))
    argv = [*_program(root + places.unit(unit)), "ctl", "--config", config]
    state = _unit(unit)
    if request["command"] == "resume":
        _repaired(root)
    stopped = state["active"] in ("inactive", "failed")
    command = str(request["command"])
    argv.append(_OF_STOPPED.get(command, command) if stopped else command)
    for option in ("wait", "count", "since"):
        if request.get(option):
            argv += ["--" + option, str(request[option])]
    if request.get("absent"):
        argv += ["--absent", ",".join(request["absent"])]
    by = ["--by", str(request["by"])] if request.get("by") else []
    seconds = 30 + float(request.get("wait") or 0)
    done = run_command.finish([*argv, *by], seconds)
    if by and '"usage: ctl' in done.output:  # a guard of an earlier version does not ask who
        done = run_command.finish(argv, seconds)
    answer = _answer(done)
    return {"unit": state if request["command"] in ("status", "logs") else _unit(unit), "answer": answer}


def _weights(request: Json) -> Json:
    """Return what the guard of the daemons that keep the group's weights answers, where there are some."""
    root, group = request.get("root", ""), request["group"]
    config = root + places.weights_config(group)
    if not os.path.isfile(config):
        return {}
    try:
        argv = _program(root + places.unit(places.weights_unit(group)))
    except OSError as error:
        return {"weights": {"error": str(error)}}
    return {"weights": _answer(run_command.finish([*argv, "ctl", "--config", config, "status"], _WEIGHTS_SECONDS))}


def _answer(done: run_command.Finished) -> Json:
    try:
        answer: Json = json.loads(done.output)
    except ValueError:
        answer = {"error": (done.errors or done.output).strip()[-500:] or f"status {done.status}"}
    return answer


def _repaired(root: str) -> None:
    """Date the host's repair: errors of the driver before now no longer keep a deploy or a guard from starting."""
    path = root + places.REPAIRED
    if os.path.isdir(os.path.dirname(path)):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))
        os.utime(path)


def _program(path: str) -> list[str]:
    """Return the command that starts the unit's guard, without the guard's arguments."""
    unit = os.path.basename(path)
    try:
        with open(path, encoding="utf-8") as file:
            start = re.search(r"^ExecStart=(\S+) (-I) (\S+)", file.read(), re.MULTILINE)
    except FileNotFoundError:
        raise OSError(f"there is no {unit} on this host; run the recipe's deploy") from None
    if startable.masked(path):
        raise OSError(f"{unit} {startable.MASKED}; then run the recipe's deploy")
    if start is None:
        raise OSError(f"{unit} runs no guard (supervisor = systemd)")
    return list(start.groups())


def _unit(unit: str) -> Json:
    values = systemd_units.show([unit], _SHOWN).get(unit, {})
    return {
        "active": values.get("ActiveState", ""),
        "sub": values.get("SubState", ""),
        "restarts": int(values.get("NRestarts") or 0),
        "since": values.get("ActiveEnterTimestamp", ""),
    }
