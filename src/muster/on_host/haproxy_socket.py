"""HAProxy's own socket on an edge host."""

from __future__ import annotations

import socket

_LONGEST = 64 << 20
_SECONDS = 10.0


def ask(runtime: str, command: str) -> str | None:
    """Return what HAProxy's socket answers; None where nobody listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.connect(runtime)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        connection.sendall(f"{command}\n".encode())
        answer = b""
        while len(answer) <= _LONGEST:
            data = connection.recv(1 << 16)
            if not data:
                return answer.decode("ascii", "replace")
            answer += data
    raise OSError("HAProxy's socket answers without end")
