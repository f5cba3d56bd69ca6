"""The guard's command line.

guard --config FILE -- COMMAND… [--then COMMAND…]…   the unit's main process
guard ctl --config FILE COMMAND                      see `client`
guard post --config FILE                             ExecStopPost: keeps how the guard ended, as systemd reports it
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from . import client, credentials, protocol
from .config import ConfigError, load
from .loop import Guard
from .state_store import StateStore

NEXT = "--then"
UNUSABLE = 78
"""Exit status when the guard cannot even start (EX_CONFIG)."""


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["ctl"]:
        return client.main(arguments[1:])
    if arguments[:1] == ["post"]:
        return _post(arguments[1:])
    try:
        path, command_lines = command_lines_of(arguments)
        config = load(path)
        if len(command_lines) != len(config.children):
            raise ValueError(
                f"{len(command_lines)} commands after `--`, but {path} names {len(config.children)} processes; "
                "reload systemd (daemon-reload) and run the deploy again"
            )
        exposed = credentials.hide_memory()
        secrets = credentials.read()
        key = protocol.read_key(secrets.group_key)
    except KeyError as error:
        return _unusable(f"{error.args[0]} is not set: the unit needs StandardInput=file: with the group's key")
    except (OSError, ConfigError, ValueError, protocol.ProtocolError) as error:
        return _unusable(str(error))
    standby = None
    while True:
        guard = Guard(config, path, command_lines, key, secrets.engine, standby)
        if exposed:
            guard.log(f"processes of this user can read the guard's memory, the group's key in it: {exposed}")
        status = asyncio.run(guard.run())
        standby = guard.next_life
        if standby is None:
            return status


def command_lines_of(arguments: Sequence[str]) -> tuple[str, list[list[str]]]:
    """The path of guard.json and the children's command lines. Raises ValueError."""
    if len(arguments) < 4 or arguments[0] != "--config" or arguments[2] != "--":
        raise ValueError("usage: --config FILE -- COMMAND... [--then COMMAND...]")
    command_lines: list[list[str]] = [[]]
    for word in arguments[3:]:
        if word == NEXT:
            command_lines.append([])
        else:
            command_lines[-1].append(word)
    if not all(command_lines):
        raise ValueError(f"an empty command beside {NEXT}")
    return arguments[1], command_lines


def _post(arguments: Sequence[str]) -> int:
    """Keep what ExecStopPost's environment reports: `exit-code exited 75`, `watchdog killed KILL`, ..."""
    if len(arguments) != 2 or arguments[0] != "--config":
        return _unusable("usage: post --config FILE")
    try:
        config = load(arguments[1])
    except (OSError, ConfigError) as error:
        return _unusable(str(error))
    words = [os.environ.get(name, "") for name in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS")]
    StateStore(config.runtime_directory, config.state_directory).save_ended(" ".join(word for word in words if word))
    return 0


def _unusable(reason: str) -> int:
    sys.stderr.write(f"muster: {reason}\n")
    return UNUSABLE
