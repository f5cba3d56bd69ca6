"""Ask a running group: does it serve the model under its name, does every rank answer, as planned?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from muster.on_host import systemd_units

Json = dict[str, Any]

_AT_ONCE = 32
_STANDS_BY = "/guard/standby_program.py"
_LOADER = "--load-format"
"""What a guard adds to the planned command line, at its end, where it has chosen a loader for this generation."""


def main(request: Json) -> Json:
    """Return {problems: [text], ranks: [DP rank that answered], served: [name]}.

    Args:
        request: `units` [{unit, digest, argv}] that must run here, `argv` of the main process where that is a guard;
            `processes` [{unit, argv, env, guarded}] in them; neither where the endpoint alone is asked. Where this host
            has an endpoint also `url` (the API's base URL), `model` (served name), `ranks` (number of DP ranks that
            answer there), `first_rank` (the first of them; the endpoint counts from 0), `question` (what each is asked:
            `path`, `body`, `rows` and `holds` of a good answer, `by_rank`), `tool_calling` (whether planned; None where
            it is not asked), `seconds` (per answer) and `api_key_file` (this host's environment file with VLLM_API_KEY,
            or None).
    """
    units = request.get("units", ())
    states = systemd_units.states([unit["unit"] for unit in units])
    problems = [problem for unit in units for problem in not_as_planned(unit, states.get(unit["unit"], {}))]
    for process in request.get("processes", ()):
        problems += not_running(process, states.get(process["unit"], {}))
    if not request.get("url"):
        return {"problems": problems, "ranks": [], "served": []}
    # HTTP and threads take longer to import than all else here takes to run, and most hosts have no endpoint.
    from concurrent.futures import ThreadPoolExecutor

    from muster.on_host.endpoint_api import Api

    api = Api(request["url"], request["seconds"], request.get("api_key_file"))
    if api.credentials and (got := api.without_key()):
        problems.append(f"{request['url']}{got}, not HTTP 401")
    served = api.models()
    if request["model"] not in served:
        problems.append("{}/v1/models names {}, not '{}'".format(request["url"], served or "nothing", request["model"]))
        return {"problems": problems, "ranks": [], "served": served}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        errors = list(pool.map(lambda number: api.answer(request["question"], number), range(request["ranks"])))
    answers = dict(enumerate(errors, request["first_rank"]))
    path = request["question"]["path"]
    problems += [f"DP rank {rank} did not answer {path}: {error}" for rank, error in answers.items() if error]
    if request["tool_calling"] is not None:
        refused = api.tool_call(request["model"])
        if request["tool_calling"] and refused:
            problems.append(f"tool calling is planned, but a chat request with tool_choice=auto got {refused}")
        if not request["tool_calling"] and not refused:
            problems.append("tool calling is off in the plan, but a chat request with tool_choice=auto was taken")
    return {"problems": problems, "ranks": [rank for rank, error in answers.items() if not error], "served": served}


def not_as_planned(unit: Json, state: Json) -> Iterator[str]:
    """Yield the problems of one planned unit: it does not run, systemd is behind its file, or it runs another plan."""
    name = unit["unit"]
    if state.get("active") != "active":
        yield "{} is {}, not active".format(name, state.get("active", "missing"))
        return
    if state["reload"]:
        yield f"systemd holds an older {name} than its file: the next start would run something else"
    if state["digest"] != unit["digest"]:
        yield "{} runs plan {}, not {}".format(name, state["digest"] or "unknown", unit["digest"])
    argv = command_line(state["main_pid"])
    if unit["argv"] and argv != unit["argv"]:
        yield "{} is `{}`, not the planned `{}`".format(name, " ".join(argv or []), " ".join(unit["argv"]))


def not_running(process: Json, state: Json) -> Iterator[str]:
    """Yield the problems of one planned process: it has another command line or environment, or is not there."""
    if state.get("active") != "active":
        return  # its unit has said so
    lines = command_lines(state["main_pid"])
    arguments = process["argv"][1:]
    # The command line of a script begins with its interpreter: compare what follows the program's name.
    if process["guarded"]:
        lines.pop(state["main_pid"], None)  # the guard's own ends in that of its child
    # What stands by for the next generation ends in the same words.
    lines = {pid: line for pid, line in lines.items() if not any(word.endswith(_STANDS_BY) for word in line)}
    running = [pid for pid, line in lines.items() if _ends_in(line, arguments, process["guarded"])]
    if not running:
        others = list(lines.values())
        yield "{} runs `{}`, not the planned `{}`".format(
            process["unit"], " ".join(others[0]) if others else "nothing", " ".join(process["argv"])
        )
        return
    env = systemd_units.environment(running[0])
    differing = sorted(name for name, value in process["env"].items() if env.get(name) != value)
    if env and differing:
        yield "{} runs {} with other values than planned of {}".format(
            process["unit"], process["argv"][0], ", ".join(differing)
        )


def _ends_in(line: list[str], arguments: list[str], guarded: bool) -> bool:
    """Return whether a command line ends in the planned arguments, but for what a guard adds."""
    added = guarded and line[-2:-1] == [_LOADER]
    return line[-len(arguments) :] == arguments or (added and line[-len(arguments) - 2 : -2] == arguments)


def command_lines(pid: int) -> dict[int, list[str]]:
    """Return the command lines of a unit's main process and its children by process, the main process first."""
    lines, waiting = {}, [pid]
    while waiting:
        current = waiting.pop(0)
        line = command_line(current)
        if line is None:
            continue
        lines[current] = line
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{current}/task"):
                with open(f"/proc/{current}/task/{task}/children") as handle:
                    waiting += [int(child) for child in handle.read().split()]
    return lines


def command_line(pid: int) -> list[str] | None:
    """Return the command line of a process, or None where it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as handle:
            text = handle.read()
    except OSError:
        return None
    # A process that stood by for its generation has a longer room for its words than it needs.
    ends = text.rstrip(b"\0") + b"\0" if text.endswith(b"\0\0\0") else text
    return [part.decode("utf-8", "replace") for part in ends.split(b"\0")[:-1]]
