"""Run a measuring tool on this host as a unit of its own, watch it, and return its result.

The tool outlives the SSH session that started it: a run may take an hour, and sessions break sooner. One request does
one thing: `start`, `poll`, `end`, or `log` (the engine's log since it started).

The tool's user is neither root nor the engine's and lives as long as the unit. It writes to `/run/<name>` alone, which
systemd makes and root only reads, and gets the API key as a credential; of the guard, the engine and other groups it
can read no more than anybody.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from muster.on_host import api_key, hardening, places, run_command, run_units, safe_paths, systemd_units, whole_files

Json = dict[str, Any]

USER = "muster-tools"
_NAME = re.compile(r"muster-bench-[a-z0-9-]{1,60}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_BIGGEST = 32 << 20
_MOST = 10_000
"""Files of a tool that are looked at for its result."""
# Lines of an engine's start; the rest is one line per request.
_TELLING = re.compile(
    r"version|attention backend|took|KV cache|Maximum concurrency|Application startup|init engine|capturing finished"
)
_LOG_LINES = 20000
# The hub's cache may be the engine user's alone. The first argument is where root has laid the tool's files.
# One line: a transient unit that is read again after a daemon-reload takes a line break for the end of its command.
_SCRIPT = "; ".join(
    [
        "umask 077",
        '[ ! -d "$1" ] || cp -R "$1/." .',
        "shift",
        'if [ -f "$CREDENTIALS_DIRECTORY/api-key" ]',
        'then line=$(cat "$CREDENTIALS_DIRECTORY/api-key")',
        'export OPENAI_API_KEY="${line#*=}"',
        "fi",
        '[ -r "$HF_HOME/hub" ] || export HF_HOME="$PWD/hf"',
        'exec "$@"',
    ]
)


def main(request: Json) -> Json:
    """Do what `request["do"]` says.

    Args:
        request: `start`: `name` (of the unit), `argv`, `env` (no secrets), `seconds` (the longest it may take), `files`
            {name: text} to find in its directory, `api_key_file` or None. `poll` and `end`: `name`, and for `poll`
            also `result` (file name, or its ending). `log`: `units`.

    Returns:
        `start`: {}. `poll`: {running, status, lines, result (text) or None}. `end`: {}. `log`: {units: {unit: {active,
        digest}}, lines, gpus: [name], driver}.
    """
    do = {"start": _start, "poll": _poll, "end": _end, "log": _log}[request["do"]]
    return do(request)


def directory(name: str) -> str:
    """Return the working directory of a tool, its own while its unit is there."""
    return f"/run/{name}"


def _start(request: Json) -> Json:
    name = _checked(request["name"])
    place, files = directory(name), f"{places.TOOL_FILES}/{name}"
    for file, text in request.get("files", {}).items():
        if not _FILE.fullmatch(file):
            raise ValueError(f"{file!r} is no name of a tool's file")
        safe_paths.make_directory(files)
        whole_files.write_whole(os.path.join(files, file), text.encode(), 0o644)
    own = {"HOME": place, "XDG_CACHE_HOME": f"{place}/cache", "VLLM_CACHE_ROOT": f"{place}/cache/vllm"}
    properties = [
        "Type=exec",
        f"RuntimeDirectory={name}",
        "RuntimeDirectoryMode=0700",
        "RuntimeDirectoryPreserve=yes",  # until `end`, also after a failure
        f"WorkingDirectory={place}",
        f"RuntimeMaxSec={int(request['seconds'])}",
        "RemainAfterExit=yes",
    ]
    if request.get("api_key_file"):
        api_key.read(request["api_key_file"])  # a file that holds no key is refused here, by name
        properties.append("LoadCredential=api-key:" + request["api_key_file"])
    start = hardening.systemd_run(name, USER, properties, {**request["env"], **own}, devices=True)
    # systemd replaces variables in a unit's command line; $$ is a dollar.
    words = ["/bin/sh", "-c", _SCRIPT, "sh", files, *request["argv"]]
    run_command.must([*start, *(word.replace("$", "$$") for word in words)])
    return {}


def _poll(request: Json) -> Json:
    name = _checked(request["name"])
    unit = name + ".service"
    state = systemd_units.show([unit], "SubState,ExecMainStatus,Result,InvocationID").get(unit, {})
    running = state.get("SubState") in ("running", "start", "start-pre", "start-post")
    invocation = state.get("InvocationID", "")
    return {
        "running": running,
        "status": int(state.get("ExecMainStatus") or 0),
        "why": state.get("Result", ""),
        "lines": systemd_units.journal(unit, 3, invocation) if running else run_units.last_words(unit, invocation),
        "result": None if running else _result(directory(name), request["result"]),
    }


def _end(request: Json) -> Json:
    name = _checked(request["name"])
    run_command.run(["systemctl", "stop", "--", name + ".service"], 30)
    run_command.run(["systemctl", "reset-failed", "--", name + ".service"])
    # systemd keeps a preserved directory of a user that comes and goes in /run/private, and a link in /run.
    for path in (f"/run/private/{name}", directory(name), f"{places.TOOL_FILES}/{name}"):
        safe_paths.remove_below(path)
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
    gpus = [row for row in rows if len(row) == 2]
    return {
        "units": units,
        "lines": lines[:2000],
        "gpus": [name for name, _ in gpus],
        "driver": gpus[0][1] if gpus else "",
    }


def _result(place: str, name: str) -> str | None:
    """Return the text of the newest file below `place` whose name ends with `name`; what is no file is passed over."""
    results, seen = [], 0
    for parent, _, files in os.walk(place):
        for path in (os.path.join(parent, file) for file in files):
            seen += 1
            status = os.lstat(path)
            if path.endswith(name) and stat.S_ISREG(status.st_mode):
                results.append((status.st_mtime_ns, path))
        if seen > _MOST:
            break
    if not results:
        return None
    return safe_paths.read_bounded(max(results)[1], _BIGGEST).decode("utf-8", "replace")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no unit of a measurement")
    return name
