"""Who makes a change, and on which machine."""

from __future__ import annotations

import getpass
import os
import socket


def user() -> str:
    """Return the name of the person, the one behind sudo; the user's number where it has no name."""
    try:
        return (os.environ.get("SUDO_USER") or getpass.getuser())[:100]
    except (KeyError, OSError):
        return str(os.getuid())


def machine() -> str:
    """Return the name of this machine."""
    return socket.gethostname()[:100]


def operator() -> str:
    """Return both: `user@machine`."""
    return f"{user()}@{machine()}"
