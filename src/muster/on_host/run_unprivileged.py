"""Run an installed engine's Python as a user that may do nothing: its packages came from outside.

The user exists only while it runs. It sees the release and the weights as any user does, writes to a /tmp of its own,
has no capabilities, and ends with its unit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from muster.on_host import hardening, run_command

Json = dict[str, Any]

USER = "muster-probe"
_ANSWER_LIMIT = 8 << 20
TAIL_LIMIT = 4000
_UNUSED = 65533
"""A uid that belongs to nobody: above systemd's dynamic users, below the kernel's 65534."""
_SLACK = 30.0
"""Seconds that systemd may take to start and to end a unit."""


def main(request: Json) -> Json:
    """Run a bundled program with an engine's Python and return what it answers.

    Args:
        request: `python` (path), `program` (text, from `programs.bundle`), `seconds`.

    Raises:
        OSError: no answer; what it printed last.
    """
    python, seconds = request["python"], float(request["seconds"])
    done = finish([python, "-I", "-"], seconds, stdin=request["program"], network=True)
    for line in reversed(done.output.splitlines()):
        if line.startswith("{"):
            try:
                answer = json.loads(line)
            except (ValueError, RecursionError):
                break
            if isinstance(answer, dict):
                return answer
            break
    raise OSError(f"{python} gave no answer and ended with {done.status}:\n{tail(done)}")


def dropping(argv: Sequence[str]) -> list[str]:
    """Return a command that gives up root's privileges before it runs `argv`, and keeps the files it inherits.

    For what must write to files that are open already; it sees the network and every file that all users see.
    """
    if not privileged():
        return list(argv)
    gives_up = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    return ["setpriv", f"--reuid={_UNUSED}", f"--regid={_UNUSED}", *gives_up, "--", *argv]


def one_line(script: str) -> str:
    """Return a Python script as one line for `-c`.

    A transient unit that is read again after a daemon-reload takes a line break for the end of its command.
    """
    return f"exec({script!r})"


def tail(done: run_command.Finished) -> str:
    """Return the last lines that a command printed, of its errors if there are any."""
    lines = (done.errors or done.output)[-TAIL_LIMIT:].strip().splitlines()
    return "\n".join(lines[-12:])


def privileged() -> bool:
    """Whether this process has anything to give up."""
    return os.geteuid() == 0


def finish(
    argv: Sequence[str],
    seconds: float,
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    network: bool = False,
    secret_files: Mapping[str, str] | None = None,
) -> run_command.Finished:
    """Run a command without privileges, in an empty environment, to its end or its deadline.

    Args:
        argv: the command.
        seconds: its deadline; all its processes end with it.
        stdin: text for its standard input.
        env: variables besides HOME and PATH, which lead to a private /tmp and the system's directories.
        network: whether it may reach other hosts.
        secret_files: variable -> file of root's that it may read; the variable names its copy.

    Raises:
        OSError: it cannot be started. TimeoutError: it missed its deadline.
    """
    own = {**(env or {}), "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    own.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    secret_files = secret_files or {}
    if not privileged():
        own |= secret_files
        return run_command.finish(argv, seconds, stdin=stdin, env=own, cwd="/tmp", limit=_ANSWER_LIMIT)
    unit = f"muster-probe-{os.urandom(6).hex()}.service"
    properties = [f"RuntimeMaxSec={int(seconds + _SLACK)}", "WorkingDirectory=/tmp", "LimitMEMLOCK=infinity"]
    properties += [] if network else ["PrivateNetwork=yes"]
    properties += [f"LoadCredential={name}:{path}" for name, path in secret_files.items()]
    own |= {name: f"/run/credentials/{unit}/{name}" for name in secret_files}
    start = hardening.systemd_run(unit, USER, properties, own, devices=True)
    start[1:1] = ["--pipe", "--wait", "--collect", "--service-type=exec"]
    try:
        return run_command.finish([*start, *argv], seconds + _SLACK / 2, stdin=stdin, limit=_ANSWER_LIMIT)
    finally:
        # Of the unit of one that was late or printed too much, only the client has ended by now.
        run_command.run(["systemctl", "kill", "--signal=KILL", "--", unit])
