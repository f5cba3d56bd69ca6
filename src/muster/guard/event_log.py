"""Events as entries of the journal, with fields to find them by, in its native protocol."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from .events import Event, fields

JOURNAL = "/run/systemd/journal/socket"


class EventLog:
    """Sends events to the journal where systemd has connected this guard's output to it, and prints them elsewhere."""

    def __init__(self, group: str, host: str, plan: str, log: Callable[[str], None], path: str = JOURNAL) -> None:
        """`log` prints one line; it stands in for a journal that takes no datagram."""
        self._origin = (group, host, plan)
        self._log = log
        self._path = path
        self._socket: socket.socket | None = None
        if os.environ.get("JOURNAL_STREAM"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def write(self, event: Event) -> None:
        """Never blocks: a stuck journal must not stop the watchdog."""
        entry = fields(event, *self._origin)
        if self._socket is not None:
            try:
                self._socket.sendto(datagram({**entry, "SYSLOG_IDENTIFIER": "muster"}), self._path)
                return
            except OSError:
                pass  # Full, or not there: its line is printed.
        self._log(entry["MESSAGE"][len("muster: ") :])


def datagram(entry: Mapping[str, str]) -> bytes:
    """An entry in the journal's native protocol. Values are single lines, which need no length before them."""
    return "".join(f"{name}={value}\n" for name, value in entry.items()).encode("utf-8", "replace")
