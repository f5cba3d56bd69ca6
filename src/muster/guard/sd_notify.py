"""sd_notify: READY, STATUS and WATCHDOG to systemd, where it asked for them."""

from __future__ import annotations

import contextlib
import os
import socket


class Notifier:
    """Silent where NOTIFY_SOCKET is unset: the guard then runs outside systemd."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._last = ""
        self._socket: socket.socket | None = None
        if self._address:
            if self._address.startswith("@"):
                self._address = "\0" + self._address[1:]
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self) -> None:
        self._send("READY=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`, sent only when it changes."""
        if text != self._last:
            self._last = text
            self._send("STATUS=" + text.replace("\n", " ")[:500])

    def _send(self, message: str) -> None:
        if self._socket is not None:
            # A full queue drops one message; the next watchdog message follows in seconds.
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)
