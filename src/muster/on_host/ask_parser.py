"""Ask the installed vLLM whether it accepts a command line; nothing is started."""

from __future__ import annotations

import json
import os
from typing import Any

from muster.on_host import engine_stamps, run_command, run_unprivileged
from muster.on_host.parser_script import SCRIPT

Json = dict[str, Any]

_SECONDS = 600.0
_ERROR_LIMIT = 4000


def main(request: Json) -> Json:
    """Return {refused: [[argv, error]]} for the command lines that the installed vLLM refuses.

    Args:
        request: `release` {path}, `argvs` [[argument]], `env`; `decided` [[argument]]: each command with the plan's own
            words alone, and `dests` [name]: what the parser must read the same from both; `files` {path: text}: what
            the command lines name and the host may not have yet. Accepted command lines are noted: an unchanged engine
            is asked about each only once. `root` (tests): where the file system begins.

    Raises:
        OSError: the release has no Python, or its vLLM does not import; the last lines it printed.
    """
    root, path = request.get("root", ""), request["release"]["path"]
    python = root + os.path.join(path, "bin", "python")
    question = {key: request.get(key, []) for key in ("argvs", "decided", "dests")} | {
        "files": request.get("files", {})
    }
    env = {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", **request.get("env", {})}
    env |= {"VLLM_CACHE_ROOT": "/tmp", "XDG_CACHE_HOME": "/tmp"}
    env["PATH"] = root + os.path.join(path, "bin") + ":" + run_command.environment()["PATH"]
    try:
        command = [python, "-c", run_unprivileged.one_line(SCRIPT)]
        done = run_unprivileged.finish(command, _SECONDS, stdin=json.dumps(question), env=env)
    except TimeoutError:
        raise OSError(f"importing vLLM from {path} took more than {_SECONDS:.0f} s") from None
    errors = answer(done.output, len(request["argvs"]))
    if done.status != 0 or errors is None:
        raise OSError(f"the vLLM in {path} does not import:\n{run_unprivileged.tail(done)}")
    for argv, error in zip(request["argvs"], errors):
        if not error:
            engine_stamps.note(root, path, argv)
    return {"refused": [[argv, error] for argv, error in zip(request["argvs"], errors) if error]}


def answer(output: str, count: int) -> list[str] | None:
    """Return one text per command line from what the engine printed, None where that is no such list."""
    line = next((line for line in reversed(output.splitlines()) if line.startswith("[")), "")
    try:
        errors = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(errors, list) or len(errors) != count or not all(isinstance(error, str) for error in errors):
        return None
    return [error[:_ERROR_LIMIT] for error in errors]
