"""`ctl`: what the deploys and `muster status` run on a host. One JSON document on stdout, always.

    ctl --config FILE status | logs [--count N] | release
    ctl --config FILE stop | restart [--since GENERATION] | resume  [--wait SECONDS]

`stop --wait` returns once every member is without a child, `restart --wait` once a new generation runs, `resume
--wait` once the group runs; `error` in the document and status 1 when that takes longer, or nobody answers. What
only takes longer also says in `pending` what is waited for: ask again. `restart --since` ends no other generation than
that one, so that asking again restarts nothing twice. `release` is `resume` for a unit that is stopped: nothing holds
the group when it starts.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from .answers import SOCKET, VERBS
from .config import Config, ConfigError, load
from .state_store import Store

ANSWER_LIMIT = 4 * 1024 * 1024


def main(arguments: Sequence[str]) -> int:
    try:
        config, verb, options = _parse(arguments)
        answer = _do(config, verb, options)
    except (OSError, ConfigError, ValueError) as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)
    sys.stdout.write("\n")
    return 1 if "error" in answer else 0


def _parse(arguments: Sequence[str]) -> tuple[Config, str, dict[str, str]]:
    words: list[str] = []
    options: dict[str, str] = {}
    verbs = ("status", "logs", "release", *VERBS)
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("--config", "--wait", "--count", "--since") and rest:
            options[word] = rest.pop(0)
        else:
            words.append(word)
    if "--config" not in options or len(words) != 1 or words[0] not in verbs:
        raise ValueError(f"usage: ctl --config FILE {' | '.join(verbs)} [--wait SECONDS] [--count N] [--since G]")
    return load(options.pop("--config")), words[0], options


def _do(config: Config, verb: str, options: dict[str, str]) -> dict[str, Any]:
    if verb == "logs":
        store = Store(config.runtime_directory, config.state_directory)
        return {"host": config.host, "bundles": store.bundles(int(options.get("--count", 1)))}
    if verb == "status":
        return ask(config, verb)
    if verb == "release":
        Store(config.runtime_directory, config.state_directory).forget()
        return {"answer": "nothing holds the group when it starts"}
    seconds = float(options.get("--wait", 0.0))
    until = time.monotonic() + seconds
    if "--since" in options:
        _ask_until(config, "status", until)
    now = _generation(config)
    before = options.get("--since", now)
    answer: dict[str, Any] = {"answer": "a new generation is here already"}
    if verb != "restart" or now == before:
        answer = _ask_until(config, verb, until)
    while "error" not in answer and "--wait" in options:
        if _came_true(config, verb, before):
            break
        if time.monotonic() > until:
            pending = _pending(config, verb)
            return {**answer, "error": f"{verb}: not done after {seconds:g} s: {pending}", "pending": pending}
        time.sleep(0.5)
    return answer


def ask(config: Config, verb: str) -> dict[str, Any]:
    """One question to this host's guard. Raises OSError, ValueError."""
    path = os.path.join(config.runtime_directory, SOCKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10.0)
        try:
            connection.connect(path)
        except OSError as error:
            raise OSError(
                f"no guard answers at {path} ({error.strerror}); look at `systemctl status {config.unit}`"
            ) from None
        connection.sendall(json.dumps({"verb": verb}).encode() + b"\n")
        text = b""
        while chunk := connection.recv(65536):
            text += chunk
            if len(text) > ANSWER_LIMIT:
                raise ValueError("the guard's answer is too long")
    if not text:
        raise ValueError("the guard closed the connection; is this user root or the unit's own?")
    answer = json.loads(text)
    if not isinstance(answer, dict):
        raise ValueError("the guard's answer is no object")
    return answer


def _ask_until(config: Config, verb: str, until: float) -> dict[str, Any]:
    """Like `ask`, again and again while the guard is between two lives. Raises OSError, ValueError."""
    while True:
        try:
            return ask(config, verb)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def _status(config: Config) -> dict[str, Any]:
    """Status, or nothing while the guard is between two lives."""
    try:
        return ask(config, "status")
    except (OSError, ValueError):
        return {}


def _generation(config: Config) -> str:
    return _generation_of(_status(config))


def _generation_of(found: dict[str, Any]) -> str:
    """As the head has it; a member as the head taught it."""
    return str((found.get("group") or found.get("member") or {}).get("generation", ""))


def _pending(config: Config, verb: str) -> str:
    found = _status(config)
    group = found.get("group") or {}
    reason = str(group.get("reason") or found.get("member", {}).get("head_reason") or "the guard starts anew")
    late = [each["host"] for each in group.get("members", ()) if each["child"] != "none"]
    return f"{reason}; no word yet that {', '.join(late)} stopped" if verb == "stop" and late else reason


def _came_true(config: Config, verb: str, before: str) -> bool:
    """On the head, which knows; a member goes by its own part."""
    found = _status(config)
    if not found or found["ending"]:
        return False
    group, own = found["group"], found["member"]
    if verb == "stop":
        if group is None:
            return bool(own["child"] == "none" and own["head_phase"] == "held")
        return group["phase"] == "stopped" and all(each["child"] == "none" for each in group["members"])
    fresh = verb == "resume" or _generation_of(found) != before
    phase = own["head_phase"] if group is None else group["phase"]
    return bool(fresh and phase in ("run", "starting", "running"))
