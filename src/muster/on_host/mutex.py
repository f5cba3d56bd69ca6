"""One session at a time."""

from __future__ import annotations

import fcntl
import time
from typing import IO

from muster.on_host import progress_lines

_EVERY = 5.0
"""Seconds between two attempts to take a lock."""
_REPORT_EVERY = 60.0
"""Seconds between two lines of progress."""


def take(lock: IO[str], what: str, minutes: float) -> None:
    """Take a lock. A disconnected session may still hold it without being able to say so.

    Args:
        lock: its open file.
        what: what the other session does, for the line of progress ("installs this release").
        minutes: how long to wait.

    Raises:
        OSError: another session still holds it.
    """
    say_at = time.monotonic()
    until = say_at + 60 * minutes
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            now = time.monotonic()
            if now > until:
                held = f"another session {what} for {minutes:.0f} minutes now"
                raise OSError(f"{held}; its process holds {lock.name}; `lslocks` on this host names it") from None
        if now >= say_at:
            progress_lines.say(f"another session {what}; waiting for it")
            say_at = now + _REPORT_EVERY
        time.sleep(_EVERY)
