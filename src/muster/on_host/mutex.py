"""One session at a time for what several would write."""

from __future__ import annotations

import fcntl
import time
from typing import IO

from muster.on_host import progress_lines

_EVERY = 5.0
"""Seconds between two looks at a lock."""
_SAID_EVERY = 60.0
"""Seconds between two lines that say so."""


def take(lock: IO[str], what: str, minutes: float) -> None:
    """Take a lock; a session that was cut may still hold it, and says so no more.

    Args:
        lock: its open file.
        what: the other session does, as a line of progress says it.
        minutes: to wait for it.

    Raises:
        OSError: another session holds it for longer.
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
            say_at = now + _SAID_EVERY
        time.sleep(_EVERY)
