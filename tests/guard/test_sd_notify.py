"""Messages to systemd."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from muster.guard.sd_notify import Notifier


def test_systemd_is_notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        notifier.ready()
        notifier.status("one\ntwo")
        notifier.status("one\ntwo")
        notifier.alive()
        notifier.stopping()
        messages = [systemd.recv(1000) for _ in range(4)]
    assert messages == [b"READY=1", b"STATUS=one two", b"WATCHDOG=1", b"STOPPING=1"]


def test_nobody_is_notified_outside_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().ready()
