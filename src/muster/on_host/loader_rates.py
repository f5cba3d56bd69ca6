"""Measures vLLM's loaders on this host: an installed engine's Python loads some of a revision's files by each.

It runs where the engine would, on the group's GPUs, and only while nobody computes on any: an engine that serves is not
disturbed. As a user that may do nothing, without a network: the engine's packages came from outside.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from typing import Any

from muster.on_host import (
    ask_guard,
    kept_loaders,
    mutex,
    places,
    run_command,
    run_unprivileged,
    transfer_room,
    weights_on_disk,
)
from muster.on_host import transfer_store as store

Json = dict[str, Any]

SAMPLE = 8 << 30
"""Bytes that each loader reads, or somewhat less, in whole files."""
IMPORTS = 120.0
"""Seconds that vLLM's imports may take."""
RUNS = 5
"""Measurements: each loader once, and vLLM's own once more from the page cache."""
_RUNS = ("active", "activating", "reloading", "deactivating")
_APPS = ("nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader")
_CALL = "\nimport json\nprint(json.dumps(main(json.loads({request!r}))), flush=True)\n"


def main(request: Json) -> Json:
    """Measure, keep the figures beside the revision's records, and return them.

    Args:
        request: `directory` of the revision, `manifest`: digest of its pin; `engines`: [[id, path of the release]], of
            which the first that is installed measures; `program`: text of `measure_loaders`; `load`: its request, but
            for the files; `key`: of the ranks; `names` of loaders besides vLLM's own; `env` of NCCL; `gpus`: numbers
            of those that may be used, empty for all; `sample`, `etc` (tests): instead of SAMPLE, and where groups are.

    Returns:
        `loaders`: as `kept_loaders.of`, or None; `why` there are none; `failed`: loader -> why it is not among them.
    """
    nothing: Json = {"loaders": None, "failed": {}, "why": ""}
    engine = next((pair for pair in request["engines"] if os.path.exists(f"{pair[1]}/bin/vllm")), None)
    if engine is None:
        return {**nothing, "why": "no engine is installed here yet"}
    directory = request["directory"]
    try:
        transfer_room.check_own(directory)
        with mutex.held(directory + ".lock", "writes here", minutes=1):
            state = weights_on_disk.pinned_state(directory, request["manifest"])
            if not state["complete"]:
                return {**nothing, "why": f"{directory} is not complete"}
            sizes = {path: int(entry["size"]) for path, entry in state["manifest"]["files"].items()}
            files = {store.inside(directory, path): count for path, count in sizes.items()}
            busy = _busy(request.get("etc", places.ETC))  # at last: it may have waited for the lock
            if busy:
                return {**nothing, "why": busy}
            chosen = sample(files, ["auto", *request["names"]], request.get("sample", SAMPLE))
            if not chosen:
                return {**nothing, "why": "there are no safetensors"}
            answer = _run(f"{engine[1]}/bin/python", request, chosen)
            found = answer.get("loaders") or {}
            good = {name: rate for name, each in found.items() if (rate := kept_loaders.figures(each))}
            if good:
                kept_loaders.keep(directory, engine[0], request["key"], good)
    except (OSError, TimeoutError) as error:
        return {**nothing, "why": str(error)}
    kept = kept_loaders.of(directory) if good else None
    failed = {name: str(each.get("error", "no figures"))[:400] for name, each in found.items() if name not in good}
    return {"loaders": kept, "failed": failed, "why": "" if kept else str(answer.get("error") or "no loader loaded")}


def sample(files: dict[str, int], names: Sequence[str], least: int) -> dict[str, list[str]]:
    """Return files of about so many bytes for each loader: of one size, and others for each where there are enough.

    A loader that reads what another has just read may be given it by the disk's own cache.

    Args:
        files: path -> bytes.
        names: of loaders.
        least: bytes for each.
    """
    weights = sorted((path for path in files if path.endswith(".safetensors")), key=lambda path: (-files[path], path))
    if not weights:
        return {}
    alike = [path for path in weights if 2 * files[path] >= files[weights[0]]]
    count = min(len(alike), -(-least // max(1, files[weights[0]])))
    turns = max(1, len(alike) // count)
    return {name: alike[turn % turns * count :][:count] for turn, name in enumerate(names)}


def _busy(etc: str) -> str:
    """Return why its GPUs are not to be used; empty where nobody does or soon will, or where it has none.

    A group whose guard runs may start at any time, as after a failure: nothing of this is to be in its way.
    """
    for group in _groups(etc):
        if _may_start(ask_guard.main({"group": group, "command": "status"})):
            return f"{group} runs, or starts anew; muster stage measures them while it is stopped"
    status, text = run_command.run(_APPS)
    if status == run_command.MISSING:
        return ""
    if status != 0:
        return f"nvidia-smi failed: {' '.join(text.split())[:200]}"
    pids = text.split()
    who = f"{len(pids)} process{'es' * (len(pids) > 1)} compute{'s' * (len(pids) == 1)} on its GPUs"
    return f"{who}; muster stage measures them while the group is stopped" if pids else ""


def _may_start(told: Json) -> bool:
    """Whether a group has an engine on this host or may start one, by its guard's words: the head's hold is theirs too.

    Args:
        told: by `ask_guard`. The engine's user can answer for the guard; what computes on GPUs is asked besides.
    """
    answer = told.get("answer")
    member = answer.get("member") if isinstance(answer, dict) else None
    held = isinstance(member, dict) and (member.get("head_phase"), member.get("child")) == ("held", "none")
    return told.get("unit", {}).get("active") in _RUNS and not held


def _groups(etc: str) -> list[str]:
    """Return the groups that have a guard on this host."""
    with contextlib.suppress(OSError):
        return [name for name in sorted(os.listdir(etc)) if os.path.isfile(f"{etc}/{name}/guard.json")]
    return []


def _run(python: str, request: Json, files: dict[str, list[str]]) -> Json:
    """Have the engine's Python measure; what it answers.

    Raises:
        OSError: no answer; what it printed last. TimeoutError: not in time.
    """
    inner = json.dumps({**request["load"], "files": files})
    program = request["program"] + _CALL.format(request=inner)
    seconds = IMPORTS + RUNS * float(request["load"]["seconds"])
    env = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", **request["env"]}
    # Of all interfaces the unit has this one alone.
    env |= {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}
    if request["gpus"]:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, request["gpus"]))
    done = run_unprivileged.finish([python, "-I", "-"], seconds, stdin=program, env=env)
    for line in reversed(done.output.splitlines()):
        if line.startswith('{"'):
            try:
                return _checked(json.loads(line), ("auto", "auto-cached", *request["names"]))
            except (ValueError, RecursionError):
                break
    raise OSError(f"{python} gave no answer and ended with {done.status}:\n{run_unprivileged.tail(done)}")


def _checked(answer: Any, names: Sequence[str]) -> Json:
    """Return an answer of the engine's packages, as far as it is of the form that was asked for: of these loaders."""
    loaders = answer.get("loaders") if isinstance(answer, dict) else None
    if not isinstance(loaders, dict):
        return {"error": str(answer.get("error") if isinstance(answer, dict) else answer)[:400]}
    return {"loaders": {name: loaders[name] for name in names if isinstance(loaders.get(name), dict)}}
