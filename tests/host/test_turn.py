"""Whoever waits for another session's lock says so, and does not wait for ever."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from muster.host import turn


def test_a_free_lock_is_taken_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(tmp_path / "lock", "w") as lock, open(tmp_path / "lock", "w") as other:
        turn.take(lock, "writes here", minutes=1)
        assert capsys.readouterr().out == ""
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_who_holds_a_lock_for_too_long_is_named(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as lock, open(tmp_path / "lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=r"another session writes here for -1 minutes now; its process holds .*/lock"):
            turn.take(lock, "writes here", minutes=-1)
