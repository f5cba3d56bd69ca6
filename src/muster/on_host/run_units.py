"""Start, stop and watch units in short polls: between them the control machine reports what it waits for."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from muster.on_host import bounded_http, change_record, run_command, run_unprivileged, systemd_units

Json = dict[str, Any]

_POLL = 0.5
_STOPPED = ("inactive", "failed")
# Variables that name a file which only root reads.
_SECRET_FILES = ("RAY_AUTH_TOKEN_PATH",)
_SEARCHED, _FIRST, _LAST = 500, 3, 8
_SYNC = 10.0
# A line that reports an error, rather than code that raises it.
_ERROR = re.compile(r"^(?!\s|raise )(.*\W)?\w*(Error|Exception)\b|^error:|: error: ")


def main(request: Json) -> Json:
    """Do one poll.

    Args:
        request: `do`: `start`, `stop`, `wait` or `disable`; `units` [name] that this is about; `start` [name] to start;
            `checks` [{kind, target, text}] awaited once all units run; `since` {unit: invocation} of an earlier poll;
            `seconds`: the longest this poll may last; `hold`: use all of them even if nothing is pending; `fence`: the
            change that stops or starts them.

    Returns:
        {done, died, pending, last, since}: `done` when nothing is pending; `died` {unit: [last log lines]} of units
        that ended or restarted after `since`; `pending`: what is still awaited; `last` {unit: log line}.
    """
    names = request["units"]
    if not names and not request.get("checks"):
        return {"done": True, "died": {}, "pending": "", "last": {}, "since": {}}
    if request["do"] != "wait":
        change_record.require(request.get("fence"))
    if request["do"] == "stop":
        return stop(names, request["seconds"])
    if request["do"] == "disable":
        run_command.must(["systemctl", "disable", "--quiet", "--", *names], 60)
        return _answer(True, {}, "", names, {})
    if request["do"] == "start":
        systemd_units.reload_stale(request["start"])  # an earlier run may have been cut before it came to that
        run_command.run(["systemctl", "reset-failed", "--", *request["start"]])
        run_command.must(["systemctl", "start", "--no-block", "--", *request["start"]], 60)
    since = dict(request.get("since", {}))
    return wait(names, request.get("checks", []), since, request["seconds"], bool(request.get("hold")))


def stop(names: list[str], seconds: float) -> Json:
    """Ask systemd to stop the units and wait until none has a process left, for one poll at most."""
    run_command.must(["systemctl", "stop", "--no-block", "--", *names], 60)
    deadline = time.monotonic() + seconds
    while True:
        left = [name for name, unit in systemd_units.states(names).items() if unit["active"] not in _STOPPED]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(_POLL)
    if not left:
        run_command.run(["systemctl", "reset-failed", "--", *names])
    return _answer(not left, {}, "{} to stop".format(", ".join(left)) if left else "", names, {})


def wait(names: list[str], checks: list[Json], since: Json, seconds: float, hold: bool) -> Json:
    """Wait until all units run and every check passes, until one dies, or until the poll is over."""
    deadline = time.monotonic() + seconds
    while True:
        queued = waiting_for_others(names)  # before the states: a start that ends in between shows in them
        shown = systemd_units.states(names)
        for name, unit in shown.items():
            if unit["invocation"] and name not in queued:
                since.setdefault(name, unit["invocation"])
        died = [name for name, unit in shown.items() if name not in queued and dead(unit, since.get(name))]
        if died:
            return _answer(False, {name: last_words(name, since.get(name)) for name in died}, "", names, since)
        starting = [name for name, unit in shown.items() if unit["active"] != "active"]
        failing = [] if starting else [check["text"] for check in checks if not passes(check)]
        pending = "{} to start".format(", ".join(starting)) if starting else ", ".join(failing)
        if (not pending and not hold) or time.monotonic() > deadline:
            return _answer(not pending, {}, pending, names, since)
        time.sleep(_POLL)


def waiting_for_others(names: list[str]) -> set[str]:
    """Return the units whose start is queued behind what they require: they still show how they ended before."""
    jobs = {name: values.get("Job", "0") for name, values in systemd_units.show(names, "Job").items()}
    return {name for name, job in jobs.items() if job not in ("", "0")}


def dead(unit: Json, invocation: str | None) -> bool:
    """Whether a started unit has ended, failed, or restarted."""
    if unit["active"] in ("failed", "deactivating") or unit["sub"] == "auto-restart":
        return True
    if invocation and unit["invocation"] and unit["invocation"] != invocation:
        return True
    return bool(unit["active"] == "inactive" and invocation)


def last_words(name: str, invocation: str | None) -> list[str]:
    """Return why a unit ended, from its log: the first errors, which tend to be the cause, and the last lines."""
    run_command.run(["journalctl", "--sync"], _SYNC)  # what a busy journald has not read yet tends to be the cause
    said = systemd_units.journal(name, _SEARCHED, invocation) if invocation else []
    lines = said or systemd_units.own_words(name, _SEARCHED) or systemd_units.journal(name, _SEARCHED)
    plain = [systemd_units.VLLM_PREFIX.sub("", line) for line in lines]
    errors = list(dict.fromkeys(line for line in plain if _ERROR.search(line)))[:_FIRST]
    tail = plain[-_LAST:]
    return [line for line in errors if line not in tail] + tail


def passes(check: Json) -> bool:
    """Try a check once."""
    kind, target = check["kind"], check["target"]
    if kind == "command":
        return succeeds(list(target))
    if kind == "tcp":
        address, port = target.rsplit(":", 1)
        try:
            with socket.create_connection((address.strip("[]"), int(port)), 3):
                return True
        except OSError:
            return False
    return bounded_http.answers(target, 5)


def succeeds(argv: list[str]) -> bool:
    """Whether a command of the engine's own Python, after `/usr/bin/env NAME=VALUE ...`, ends with 0, unprivileged."""
    env: dict[str, str] = {}
    if argv[0] == "/usr/bin/env":
        argv = argv[1:]
        while "=" in argv[0]:
            name, _, env[name] = argv.pop(0).partition("=")
    secret_files = {name: env.pop(name) for name in _SECRET_FILES if name in env}
    try:
        done = run_unprivileged.finish(argv, 60, env=env, network=True, secret_files=secret_files)
    except OSError:
        return False
    return done.status == 0


def _answer(done: bool, died: Json, pending: str, names: list[str], since: Json) -> Json:
    last = {name: (systemd_units.journal(name, 1) or [""])[0] for name in names} if not done else {}
    return {"done": done, "died": died, "pending": pending, "last": last, "since": since}
