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


def statistics(runtime: str) -> list[dict[str, str]]:
    """Return what HAProxy shows of its frontends, backends and servers, a row each; nothing where none runs."""
    lines = (ask(runtime, "show stat") or "").splitlines()
    names = lines[0].lstrip("# ").split(",") if lines else []
    return [dict(zip(names, line.split(","))) for line in lines[1:] if line]


def server_states(runtime: str) -> dict[str, dict[str, str]]:
    """Return backend/server -> where it is and what has been set of it; nothing where none runs."""
    names: list[str] = []
    states: dict[str, dict[str, str]] = {}
    for line in (ask(runtime, "show servers state") or "").splitlines():
        if line.startswith("# "):
            names = line[2:].split(" ")
        elif names and line:
            row = dict(zip(names, line.split(" ")))
            states[f"{row['be_name']}/{row['srv_name']}"] = row
    return states
