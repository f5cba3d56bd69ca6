"""JSON lines over TCP between the stand-in's ranks."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any


class Line:
    """One connection; sends are whole lines, also from several threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: dict[str, Any]) -> bool:
        """Send one message; False when the other side is known to be gone."""
        try:
            with self._lock:
                self._sock.sendall(json.dumps(message).encode() + b"\n")
            return True
        except OSError:
            return False

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield messages until the connection ends."""
        try:
            with self._sock.makefile("rb") as lines:
                for line in lines:
                    yield json.loads(line)
        except (OSError, ValueError):
            return
