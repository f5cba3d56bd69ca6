"""Lines for a person, under a host's name."""

from __future__ import annotations

from pyinfra import logger
from pyinfra.api.host import Host

from muster.hosts.printable import printable


def say(host: Host, text: str) -> None:
    """Print lines under a host's name."""
    for line in printable(text).splitlines() or [""]:
        host.log(line)


def fail(host: Host, text: str) -> None:
    """Print lines of an error under a host's name."""
    for line in printable(text).splitlines() or ["failed"]:
        host.log_styled(line, fg="red", log_func=logger.error)
