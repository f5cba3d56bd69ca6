"""A python3 before a host's own, for hosts that tell another time, or are in other hands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from muster.sandbox import Sandbox

PLACE = "usr/local/bin/python3"
"""In a host's tree; the host's own is in /usr/bin."""
# `muster.hosts.programs` runs its programs by `python3 -ISc CODE`, where CODE reads the program from standard input.
_RUN = "-ISc"
_ASKED = "sys.exit(sys.version_info"
"""In the CODE that only asks whether this Python is new enough."""


def beginning_with(prelude: str = "", within: str = "") -> str:
    """Return a script that runs every host program after some lines of Python, or within another command."""
    return (
        f'#!/bin/sh\n[ "$1" = {_RUN} ] || exec /usr/bin/python3 "$@"\n'
        f"exec {within} /usr/bin/python3 {_RUN} \"$(cat <<'END'\n{prelude}\nEND\n)\n$2\"\n"
    )


def doing(body: str) -> str:
    """Return a script that passes for a new enough Python and does as `body`, in shell, says in place of a program."""
    return f"#!/bin/sh\ncase \"$*\" in *'{_ASKED}'*) exit 0;; esac\n{body}\n"


AN_HOUR_AHEAD = beginning_with("import time; _now = time.time; time.time = lambda: _now() + 3600")
"""A clock cannot be set apart in a host that shares its kernel: there Python itself tells another time."""


@contextmanager
def planted(box: Sandbox, host: str, script: str) -> Iterator[None]:
    """Have a host find a script where it looks for python3 first."""
    place = box.tree(host) / PLACE
    place.write_text(script)
    place.chmod(0o755)
    try:
        yield
    finally:
        place.unlink()
