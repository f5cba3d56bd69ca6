"""Run a measuring tool on this host as a unit of its own, watch it, and return its result.

The tool outlives the SSH session that started it: a run may take an hour, and sessions break sooner. One request does
one thing: `start`, `poll`, `end`, or `log` (the engine's log since it started).
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import shutil
from typing import Any

from muster.on_host import api_key, run_command, run_units, systemd_units, whole_files

Json = dict[str, Any]

_NAME = re.compile(r"muster-bench-[a-z0-9-]{1,60}")
_BIGGEST = 32 << 20
# Lines of an engine's start; the rest is one line per request.
_TELLING = re.compile(
    r"version|attention backend|took|KV cache|Maximum concurrency|Application startup|init engine|capturing finished"
)
_LOG_LINES = 20000


def main(request: Json) -> Json:
    """Do what `request["do"]` says.

    Args:
        request: `start`: `name` (of the unit), `directory`, `argv`, `env`, `user`, `seconds` (the longest it may take),
            `files` {name: text} to write there, `api_key_file` or None. `poll` and `end`: `name`, `directory`, and for
            `poll` also `result` (file name, or its ending). `log`: `units`.

    Returns:
        `start`: {}. `poll`: {running, status, lines, result (text) or None}. `end`: {}. `log`: {units: {unit: {active,
        digest}}, lines, gpus: [name], driver}.
    """
    do = {"start": _start, "poll": _poll, "end": _end, "log": _log}[request["do"]]
    return do(request)


def _start(request: Json) -> Json:
    name, directory = _checked(request["name"]), request["directory"]
    user = pwd.getpwnam(request["user"])
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for file, text in request.get("files", {}).items():
        whole_files.write_whole(os.path.join(directory, file), text.encode(), 0o644)
    script = "#!/bin/sh\nexec " + " ".join(shlex.quote(word) for word in request["argv"]) + "\n"
    whole_files.write_whole(os.path.join(directory, "run.sh"), script.encode(), 0o755)
    env = dict(request["env"])
    if request.get("api_key_file"):
        env["OPENAI_API_KEY"] = api_key.read(request["api_key_file"])
    lines = "".join(f"{key}={_quoted(value)}\n" for key, value in env.items())
    whole_files.write_whole(os.path.join(directory, "env"), lines.encode(), 0o600)  # systemd reads it as root
    os.chown(directory, user.pw_uid, user.pw_gid)
    properties = {
        "User": request["user"],
        "WorkingDirectory": directory,
        "EnvironmentFile": os.path.join(directory, "env"),
        "RuntimeMaxSec": str(int(request["seconds"])),
        "RemainAfterExit": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ReadWritePaths": " ".join(["-/var/lib/muster", "-/var/cache/muster", directory]),
        "PrivateTmp": "yes",
        "LimitNOFILE": "1048576",
        "LimitCORE": "0",
    }
    options = [f"--property={key}={value}" for key, value in properties.items()]
    run_command.must(
        ["systemd-run", "--quiet", "--unit=" + name, *options, "/bin/sh", os.path.join(directory, "run.sh")]
    )
    return {}


def _poll(request: Json) -> Json:
    unit = _checked(request["name"]) + ".service"
    state = systemd_units.show([unit], "SubState,ExecMainStatus,Result,InvocationID").get(unit, {})
    running = state.get("SubState") in ("running", "start", "start-pre", "start-post")
    status = int(state.get("ExecMainStatus") or 0)
    found = None if running else _result(request["directory"], request["result"])
    invocation = state.get("InvocationID", "")
    return {
        "running": running,
        "status": status,
        "why": state.get("Result", ""),
        "lines": systemd_units.journal(unit, 3, invocation) if running else run_units.last_words(unit, invocation),
        "result": found,
    }


def _end(request: Json) -> Json:
    unit = _checked(request["name"]) + ".service"
    run_command.run(["systemctl", "stop", "--", unit], 30)
    run_command.run(["systemctl", "reset-failed", "--", unit])
    shutil.rmtree(request["directory"], ignore_errors=True)
    return {}


def _log(request: Json) -> Json:
    units, lines = {}, []
    for unit, state in systemd_units.states(request["units"]).items():
        units[unit] = {"active": state["active"], "digest": state["digest"]}
        if state["invocation"]:
            lines += [
                line for line in systemd_units.journal(unit, _LOG_LINES, state["invocation"]) if _TELLING.search(line)
            ]
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    status, output = run_command.run(query, 30)
    rows = [row.split(", ") for row in output.strip().splitlines()] if not status else []
    gpus = [row[0] for row in rows if len(row) == 2]
    return {"units": units, "lines": lines[:2000], "gpus": gpus, "driver": rows[0][1] if gpus else ""}


def _result(directory: str, name: str) -> str | None:
    """Return the text of the newest file below `directory` whose name ends with `name`."""
    found = []
    for place, _, files in os.walk(directory):
        found += [os.path.join(place, file) for file in files if file.endswith(name)]
    if not found:
        return None
    newest = max(found, key=os.path.getmtime)
    if os.path.getsize(newest) > _BIGGEST:
        raise ValueError(f"{newest} has {os.path.getsize(newest)} bytes; at most {_BIGGEST} are brought back")
    with open(newest, encoding="utf-8", errors="replace") as handle:
        return handle.read()


def _quoted(value: str) -> str:
    if "\n" in value:
        raise ValueError("a line break in the environment")
    return json.dumps(value, ensure_ascii=False)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no unit of a measurement")
    return name
