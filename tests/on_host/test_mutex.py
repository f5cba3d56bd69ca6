"""Whoever waits for another session's lock says so, and does not wait for ever."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

import pytest

from muster.on_host import mutex


def test_a_free_lock_is_taken_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mutex.held(str(tmp_path / "lock"), "writes here", minutes=1), open(tmp_path / "lock", "w") as other:
        assert capsys.readouterr().out == ""
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_who_holds_a_lock_for_too_long_is_named(tmp_path: Path) -> None:
    why = r"another session writes here for -1 minutes now; its process holds .*/lock"
    with open(tmp_path / "lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=why), mutex.held(str(tmp_path / "lock"), "writes here", minutes=-1):
            pass


class Clock:
    """Time that passes in `sleep` alone, and a lock that is let go at a moment of it."""

    def __init__(self, lock: IO[str], after: float) -> None:
        self.now = 0.0
        self._lock, self._after = lock, after

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self._after:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


def test_a_wait_is_said_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(tmp_path / "lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        clock = Clock(other, after=150)
        monkeypatch.setattr(mutex, "time", clock)
        with mutex.held(str(tmp_path / "lock"), "writes here", minutes=4):
            pass
    assert clock.now == 150
    assert capsys.readouterr().out.count("another session writes here; waiting for it\n") == 3


class Remover(Clock):
    """The other session removes the lock's file, as a pruned release's, before it lets go."""

    def sleep(self, seconds: float) -> None:
        Path(self._lock.name).unlink()
        super().sleep(seconds)


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_at_its_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    with open(lock, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr(mutex, "time", Remover(other, after=1))
        with mutex.held(str(lock), "removes it", minutes=1), open(lock) as third, pytest.raises(BlockingIOError):
            fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
