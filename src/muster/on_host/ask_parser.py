"""Ask the installed vLLM whether it accepts a command line; nothing is started."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from muster.on_host import engine_stamps, run_command
from muster.on_host.parser_script import SCRIPT

Json = dict[str, Any]


def main(request: Json) -> Json:
    """Return {refused: [[argv, error]]} for the command lines that the installed vLLM refuses.

    Args:
        request: `release` {path}, `argvs` [[argument]], `env`; `decided` [[argument]]: each command with the plan's own
            words alone, and `dests` [name]: what the parser must read the same from both. Accepted command lines are
            noted: an unchanged engine is asked about each only once. `root` (tests): where the file system begins.

    Raises:
        OSError: the release has no Python, or its vLLM does not import; the last lines it printed.
    """
    root, path = request.get("root", ""), request["release"]["path"]
    python = root + os.path.join(path, "bin", "python")
    question = {key: request.get(key, []) for key in ("argvs", "decided", "dests")}
    with tempfile.TemporaryDirectory() as home:
        # Importing vLLM writes caches; keep them out of root's.
        env = {
            **run_command.environment(),
            "VLLM_LOGGING_LEVEL": "ERROR",
            "HF_HUB_OFFLINE": "1",
            **request.get("env", {}),
        }
        env.update({"HOME": home, "VLLM_CACHE_ROOT": home, "XDG_CACHE_HOME": home, "PYTHONDONTWRITEBYTECODE": "1"})
        env["PATH"] = root + os.path.join(path, "bin") + ":" + env["PATH"]
        try:
            done = run_command.finish([python, "-c", SCRIPT], 600, stdin=json.dumps(question), env=env, cwd=home)
        except TimeoutError:
            raise OSError(f"importing vLLM from {path} took more than 600 s") from None
    answer = next((line for line in reversed(done.output.splitlines()) if line.startswith("[")), None)
    if done.status != 0 or answer is None:
        tail = "\n".join((done.errors or done.output).strip().splitlines()[-12:])
        raise OSError(f"the vLLM in {path} does not import:\n{tail}")
    errors = json.loads(answer)
    for argv, error in zip(request["argvs"], errors):
        if not error:
            engine_stamps.note(root, path, argv)
    return {"refused": [[argv, error] for argv, error in zip(request["argvs"], errors) if error]}
