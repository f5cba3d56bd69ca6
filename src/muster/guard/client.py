"""`ctl`: the command that deploys and `muster status` run on a host. Always prints one JSON document.

    ctl --config FILE status | logs [--count N] | release
    ctl --config FILE stop [--absent HOST,...] | restart [--since GENERATION] | resume  [--wait SECONDS] [--by WHOM]
    ctl --config FILE hold

`stop --wait` returns once no member has a child, `restart --wait` once a new generation runs, `resume --wait` once the
group runs. If that takes longer, or no guard answers, the document has `error` and the status is 1; `pending` then
names what is still awaited: ask again. `restart --since` ends that generation and no other, so repeating it restarts
nothing twice. `stop` does not wait for the hosts that are `--absent`; while the head cannot be told of it, a member
keeps it and tells it later. For a stopped unit `release` is `resume`: it lifts the hold on disk; `hold` is `stop`: it
writes it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from .answers import COMMANDS, SOCKET
from .blocked_causes import cause_of
from .config import Config, ConfigError, load
from .restart_policy import STOPPED, RestartRecord
from .state_store import StateStore, boot_id

ANSWER_LIMIT = 4 * 1024 * 1024
"""Bytes of a guard's answer: whoever can write the unit's runtime directory can pose as the guard."""
ANSWER_TIMEOUT = 10.0


def main(arguments: Sequence[str]) -> int:
    try:
        config, command, options = _parse(arguments)
        answer = _execute(config, command, options)
    except (OSError, ConfigError, ValueError, RecursionError) as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)
    sys.stdout.write("\n")
    return 1 if "error" in answer else 0


def _parse(arguments: Sequence[str]) -> tuple[Config, str, dict[str, str]]:
    words: list[str] = []
    options: dict[str, str] = {}
    commands = ("status", "logs", "release", "hold", *COMMANDS)
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("--config", "--wait", "--count", "--since", "--by", "--absent") and rest:
            options[word] = rest.pop(0)
        else:
            words.append(word)
    if "--config" not in options or len(words) != 1 or words[0] not in commands:
        more = "[--wait SECONDS] [--count N] [--since G] [--by USER@MACHINE]"
        raise ValueError(f"usage: ctl --config FILE {' | '.join(commands)} {more}")
    return load(options.pop("--config")), words[0], options


def _execute(config: Config, command: str, options: dict[str, str]) -> dict[str, Any]:
    if command == "logs":
        store = StateStore(config.runtime_directory, config.state_directory)
        return {"host": config.host, "bundles": store.bundles(int(options.get("--count", 1)))}
    if command == "status":
        return ask(config, command)
    if command == "hold":
        return _hold(config)
    if command == "release":
        StateStore(config.runtime_directory, config.state_directory).lift_hold()
        return {"answer": "nothing holds the group when it starts"}
    seconds, absent = float(options.get("--wait", 0.0)), options.get("--absent", "").split(",")
    absent = [host for host in absent if host]
    until = time.monotonic() + seconds
    if "--since" in options:
        _ask_until(config, "status", until)
    now = _generation(config)
    before = options.get("--since", now)
    answer: dict[str, Any] = {"answer": "a new generation has started already"}
    if command != "restart" or now == before:
        answer = _ask_until(config, command, until, options.get("--by", ""))
    while "error" not in answer and "--wait" in options:
        if _is_done(config, command, before, absent):
            break
        if time.monotonic() > until:
            pending = _pending(config, command)
            return {**answer, "error": f"{command}: not done after {seconds:g} s: {pending}", "pending": pending}
        time.sleep(0.5)
    return answer


def _hold(config: Config) -> dict[str, Any]:
    """Keep the group stopped when this unit starts. Written as the folder's owner, who could plant links for root."""
    owner = os.stat(config.state_directory)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
    held = RestartRecord(boot=boot_id(), held=STOPPED)
    problem = StateStore(config.runtime_directory, config.state_directory).keep_hold(held)
    return {"error": f"the hold could not be written down: {problem}"} if problem else {"answer": "the group is held"}


def ask(config: Config, command: str, by: str = "") -> dict[str, Any]:
    """One question to this host's guard, or a command given by somebody. Raises OSError, ValueError."""
    path = os.path.join(config.runtime_directory, SOCKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_TIMEOUT)
        try:
            connection.connect(path)
        except OSError as error:
            raise OSError(
                f"no guard answers at {path} ({error.strerror}); look at `systemctl status {config.unit}`"
            ) from None
        connection.sendall(json.dumps({"verb": command, "by": by}).encode() + b"\n")
        text, until = b"", time.monotonic() + ANSWER_TIMEOUT
        while chunk := connection.recv(65536):
            text += chunk
            if len(text) > ANSWER_LIMIT or time.monotonic() > until:
                raise ValueError("the guard's answer is too long or too slow")
    if not text:
        raise ValueError("the guard closed the connection; only root may ask")
    answer = json.loads(text)
    if not isinstance(answer, dict):
        raise ValueError("the guard's answer is not an object")
    return answer


def _ask_until(config: Config, command: str, until: float, by: str = "") -> dict[str, Any]:
    """Like `ask`, repeated while the guard is between two lives. Raises OSError, ValueError."""
    while True:
        try:
            return ask(config, command, by)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def _status(config: Config) -> dict[str, Any]:
    """Status, or nothing while the guard is between two lives."""
    try:
        return ask(config, "status")
    except (OSError, ValueError, RecursionError):
        return {}


def _generation(config: Config) -> str:
    return _generation_of(_status(config))


def _generation_of(status: dict[str, Any]) -> str:
    """The head's own; on a member the one it learned from the head."""
    return str((status.get("group") or status.get("member") or {}).get("generation", ""))


def _pending(config: Config, command: str) -> str:
    status = _status(config)
    group = status.get("group") or {}
    reason = str(group.get("reason") or status.get("member", {}).get("head_reason") or "the guard is restarting")
    late = [each["host"] for each in group.get("members", ()) if each["child"] != "none"]
    return f"{reason}; still waiting for {', '.join(late)} to stop" if command == "stop" and late else reason


def _gone(config: Config, group: dict[str, Any]) -> bool:
    """Whether the head has been stopped for as long as members run on without it: absent ones have ended theirs."""
    return bool((group.get("phase_for") or 0.0) > config.settings.silence_timeout)


def _is_done(config: Config, command: str, before: str, absent: Sequence[str]) -> bool:
    """By the group's state on the head; on a member by its own."""
    status = _status(config)
    if not status or status["ending"]:
        return False
    group, own = status["group"], status["member"]
    if command == "stop":
        if group is None:
            return bool(own["child"] == "none" and (own["head_phase"] == "held" or own.get("held")))
        left = [each for each in group["members"] if each["child"] != "none" and each["host"] not in absent]
        return bool(group["phase"] == "stopped" and not left and (not absent or _gone(config, group)))
    fresh = command == "resume" or _generation_of(status) != before
    phase = own["head_phase"] if group is None else group["phase"]
    return bool(fresh and (phase in ("run", "starting", "running") or _loads_weights(config, group)))


def _loads_weights(config: Config, group: dict[str, Any] | None) -> bool:
    """Whether all that a new generation waits for are weights that daemons load, for as long as that takes."""
    causes = {cause_of(str(each["blocked"])) for each in (group or {}).get("members", ()) if each["lacks"]}
    return config.kept_weights is not None and causes == {"weights"}
