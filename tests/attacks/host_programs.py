"""Run a host program on a host of the sandbox, as an SSH session would."""

from __future__ import annotations

from typing import Any

from muster.hosts import programs
from muster.sandbox import Sandbox


def ask(box: Sandbox, host: str, program: str, /, **request: Any) -> dict[str, Any]:
    """Return the program's answer."""
    text = programs.bundle({program: request})
    done = box.exec(host, ["/bin/sh", "-c", programs.COMMAND], stdin=text)
    answer: dict[str, Any] = programs.answers(done.stdout.splitlines())[program]
    return answer


def shell(box: Sandbox, host: str, script: str) -> str:
    """Return what a script prints that root runs there."""
    return box.exec(host, ["/bin/sh", "-c", script]).stdout
