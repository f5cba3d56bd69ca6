"""Running the machine's own tools (ip, nft, mount): argv lists, checked, with the tool's words on failure."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from muster.errors import Refusal


def run(argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60.0) -> str:
    """Run a command to its end and return its standard output.

    Args:
        argv: the command; nothing passes through a shell.
        stdin: text for its standard input; empty when None.
        timeout: seconds until it is killed.

    Raises:
        Refusal: it failed, is missing, or took too long; carries what it printed.
    """
    done = attempt(argv, stdin=stdin, timeout=timeout)
    if done.returncode != 0:
        raise Refusal(
            f"`{shlex.join(argv)}` ended with status {done.returncode}",
            detail=(done.stderr.strip() or done.stdout.strip())[-2000:],
        )
    return done.stdout


def attempt(
    argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a command whose failure is an answer too; see `run`."""
    try:
        return subprocess.run(
            list(argv), input=stdin or "", text=True, capture_output=True, timeout=timeout, check=False
        )
    except FileNotFoundError:
        raise Refusal(f"the command '{argv[0]}' is not on this machine") from None
    except subprocess.TimeoutExpired:
        raise Refusal(f"`{shlex.join(argv)}` had not ended after {timeout:g} s") from None


def wait_for(what: str, probe: Callable[[], bool], *, timeout: float, every: float = 0.2) -> None:
    """Call `probe` until it is true.

    Raises:
        Refusal: it was not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not probe():
        if time.monotonic() > deadline:
            raise Refusal(f"{what}: not within {timeout:g} s")
        time.sleep(every)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made if missing) while the body runs; waits for another holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a whole file so that a reader sees the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as out:
        os.fchmod(out.fileno(), mode)
        out.write(text)
    draft.replace(path)
