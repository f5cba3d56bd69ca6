"""Units as systemd shows them, and what they wrote to the journal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from muster.on_host import run_command

Json = dict[str, Any]

VLLM_PREFIX = re.compile(r"^(\([^)]*\) )?([A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^]]*\] ?)?")
"""How vLLM begins every line of its log, tracebacks too."""
_STARTED = "ExecMainStartTimestampMonotonic"
_STAMPED = re.compile(r"\[ *(\d+)\.(\d{6})\] [^:]*: (.*)")
_STATE = "LoadState,ActiveState,SubState,Result,MainPID,NRestarts,UnitFileState,InvocationID,NeedDaemonReload"


def show(names: Sequence[str], properties: str) -> dict[str, dict[str, str]]:
    """Return {unit: {property: value}} as `systemctl show` prints them.

    Args:
        names: of the units.
        properties: names, joined by commas.

    Raises:
        OSError: systemd does not answer; its own words.
    """
    if not names:
        return {}
    shown = {}
    output = run_command.must(["systemctl", "show", f"--property=Id,{properties}", "--", *names])
    for block in output.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        shown[values.get("Id", "")] = values
    return shown


def states(names: Sequence[str]) -> dict[str, Json]:
    """Return {unit: state} with the plan's digest that the running main process carries.

    Raises:
        OSError: systemd does not answer; its own words.
    """
    return {
        name: {
            "load": values.get("LoadState", ""),
            "active": values.get("ActiveState", ""),
            "sub": values.get("SubState", ""),
            "result": values.get("Result", ""),
            "main_pid": int(values.get("MainPID") or 0),
            "restarts": int(values.get("NRestarts") or 0),
            "enabled": values.get("UnitFileState", "") == "enabled",
            "invocation": values.get("InvocationID", ""),
            "reload": values.get("NeedDaemonReload", "") == "yes",
            "digest": running_digest(int(values.get("MainPID") or 0)),
        }
        for name, values in show(names, _STATE).items()
    }


def reload_stale(names: Sequence[str]) -> None:
    """Have systemd read its unit files again where the file of some unit is newer than what systemd holds of it.

    Raises:
        OSError: systemd does not answer, or refuses; its own words.
    """
    if any(values.get("NeedDaemonReload") == "yes" for values in show(names, "NeedDaemonReload").values()):
        daemon_reload()


def daemon_reload() -> None:
    """Have systemd read its unit files again.

    Raises:
        OSError: it refuses; its own words.
    """
    run_command.must(["systemctl", "daemon-reload"], 120)


def running_digest(pid: int) -> str | None:
    """Return the plan's digest in a process's environment, or None: a unit may still run an older plan."""
    return environment(pid).get("MUSTER_DIGEST")


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty where it is gone."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as handle:
            pairs = handle.read().decode("utf-8", "replace").split("\0")
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def journal(unit: str, lines: int, invocation: str = "") -> list[str]:
    """Return the last lines that a unit wrote, oldest first; only those of one start when its invocation is given."""
    which = ["_SYSTEMD_INVOCATION_ID=" + invocation] if invocation else ["--unit=" + unit]
    _, output = run_command.run(["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={lines}", *which])
    return [line.rstrip()[:500] for line in output.splitlines() if line.strip()]


def own_words(unit: str, lines: int) -> list[str]:
    """Return the last lines of a unit's processes, not systemd's about it, since its last start, oldest first.

    `journal` of an invocation misses those of a process that was gone before journald asked the kernel whose it is:
    they carry the unit, which came with the stream, and no invocation.
    """
    started = int(show([unit], _STARTED).get(unit, {}).get(_STARTED) or 0)
    which = ["--boot", "--output=short-monotonic", f"--lines={lines}", "_SYSTEMD_UNIT=" + unit]
    _, output = run_command.run(["journalctl", "--no-pager", "--quiet", *which])
    stamped = filter(None, map(_STAMPED.match, output.splitlines()))
    return [line[3].rstrip()[:500] for line in stamped if int(line[1] + line[2]) >= started and line[3].strip()]
