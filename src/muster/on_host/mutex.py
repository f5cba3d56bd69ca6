"""One session at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from muster.on_host import progress_lines, safe_paths

_EVERY = 5.0
"""Seconds between two attempts to take a lock."""
_REPORT_EVERY = 60.0
"""Seconds between two lines of progress."""


@contextlib.contextmanager
def held(path: str, what: str, minutes: float) -> Iterator[None]:
    """Hold a lock. A disconnected session may still hold it without being able to say so.

    Args:
        path: of the lock's file, which is made where it is missing and stays.
        what: what the other session does, for the line of progress ("installs this release").
        minutes: how long to wait.

    Raises:
        OSError: another session still holds it, or something else has its place.
    """
    lock = safe_paths.open_below(path, os.O_RDWR | os.O_CREAT)
    try:
        os.fchmod(lock, 0o600)  # whoever can open it can hold it
        _take(lock, path, what, minutes)
        yield
    finally:
        os.close(lock)


def _take(lock: int, path: str, what: str, minutes: float) -> None:
    say_at = time.monotonic()
    until = say_at + 60 * minutes
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            now = time.monotonic()
            if now > until:
                since = f"another session {what} for {minutes:.0f} minutes now"
                raise OSError(f"{since}; its process holds {path}; `lslocks` on this host names it") from None
        if now >= say_at:
            progress_lines.say(f"another session {what}; waiting for it")
            say_at = now + _REPORT_EVERY
        time.sleep(_EVERY)
