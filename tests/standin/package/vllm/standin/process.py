"""Processes of the stand-in: named and forked as vLLM's are, and the knobs that make them fail."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

_PR_SET_NAME = 15
_ARG_START, _ARG_END = 47, 48


def knob(name: str, default: str = "") -> str:
    """Return a knob: the environment variable STANDIN_<NAME>, else the file <name> in /etc/standin.

    The file is for units, whose environment a test does not choose.
    """
    value = os.environ.get("STANDIN_" + name.upper())
    if value is not None:
        return value
    try:
        return Path(os.environ.get("STANDIN_DIR", "/etc/standin"), name).read_text().strip()
    except OSError:
        return default


def log(who: str, text: str, level: str = "INFO", place: str = "standin.py:1") -> None:
    """Print a record as vLLM's logger does: its prefix again after every line break."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    prefix = f"{os.environ.get('VLLM_LOGGING_PREFIX', '')}({who} pid={os.getpid()}) {level} {stamp} [{place}] "
    os.write(1, (prefix + text.replace("\n", "\r\n" + prefix) + "\n").encode())


def set_title(title: str) -> None:
    """Show another name in ps, as setproctitle does: the command name, and the memory of the arguments."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, title.encode()[:15], 0, 0, 0)
    try:
        # The command's name may hold blanks, so fields are counted after its closing bracket.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[_ARG_START - 2]), int(fields[_ARG_END - 2])
    except (OSError, ValueError, IndexError):
        return
    text = title.encode()[: end - start - 1]
    ctypes.memmove(start, text + b"\0" * (end - start - len(text)), end - start)


def fork(title: str, body: Callable[[], int], *, session: bool = False) -> int:
    """Run `body` in a child of that name and return its process id.

    Args:
        session: give it a session of its own, so that signals to the parent's group miss it.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if session:
            os.setsid()
        set_title(title)
        status = body()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)


def ended(pid: int) -> int | None:
    """Return the exit status of a child that ended (negative: the signal), None while it runs."""
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if done else None


def end(pid: int, seconds: float = 1.0) -> None:
    """End a child: TERM, then KILL."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while ended(pid) is None:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return
