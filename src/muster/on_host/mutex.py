"""One session at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator

from muster.on_host import progress_lines, safe_paths

_PAUSE = 0.2
"""Seconds between two attempts to take a lock that should be free."""
_EVERY = 5.0
"""Seconds between two attempts to take a lock that is held for minutes."""
_REPORT_EVERY = 60.0
"""Seconds between two lines of progress."""


@contextlib.contextmanager
def held(path: str, what: str, minutes: float) -> Iterator[None]:
    """Hold a lock. A disconnected session may still hold it without being able to say so.

    Args:
        path: of the lock's file, which is made where it is missing.
        what: what the other session does, for the line of progress ("installs this release").
        minutes: how long to wait.

    Raises:
        OSError: another session still holds it, or something else has its place.
    """
    with _locked(path, lambda lock: _wait(lock, path, what, minutes)):
        yield


@contextlib.contextmanager
def attempted(path: str, seconds: float = 0.0) -> Iterator[int]:
    """Hold a lock that should be free, and give its file's descriptor.

    Args:
        path: of the lock's file, which is made where it is missing.
        seconds: how long to try.

    Raises:
        BlockingIOError: another process holds it. OSError: something else has its place.
    """
    with _locked(path, lambda lock: _attempt(lock, path, seconds)) as lock:
        yield lock


@contextlib.contextmanager
def _locked(path: str, take: Callable[[int], None]) -> Iterator[int]:
    while True:
        lock = safe_paths.open_below(path, os.O_RDWR | os.O_CREAT)
        try:
            os.fchmod(lock, 0o600)  # whoever can open it can hold it
            take(lock)
            # A session that removes what the lock guards removes its file too: a lock on that keeps nobody out.
            if os.fstat(lock).st_nlink:
                yield lock
                return
        finally:
            os.close(lock)


def _attempt(lock: int, path: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not _is_taken(lock):
        if time.monotonic() >= until:
            raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock", path)
        time.sleep(_PAUSE)


def _is_taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(lock: int, path: str, what: str, minutes: float) -> None:
    say_at = time.monotonic()
    until = say_at + 60 * minutes
    while not _is_taken(lock):
        now = time.monotonic()
        if now > until:
            since = f"another session {what} for {minutes:.0f} minutes now"
            raise OSError(f"{since}; its process holds {path}; `lslocks` on this host names it")
        if now >= say_at:
            progress_lines.say(f"another session {what}; waiting for it")
            say_at = now + _REPORT_EVERY
        time.sleep(_EVERY)
