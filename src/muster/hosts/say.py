"""Lines for a person, under a host's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyinfra import logger
from pyinfra.api.host import Host
from pyinfra.api.output import echo

from muster.hosts.printable import printable

Show = Callable[[Host, str], None]


def _info(text: str) -> None:
    """Log from here: `deploy_run` tells these lines from pyinfra's own by the file they come from."""
    logger.info(text)


def _error(text: str) -> None:
    logger.error(text)


def say(host: Host, text: str) -> None:
    """Print lines under a host's name."""
    for line in printable(text).splitlines() or [""]:
        host.log(line, log_func=_info)


def fail(host: Host, text: str) -> None:
    """Print lines of an error under a host's name."""
    for line in printable(text).splitlines() or ["failed"]:
        host.log_styled(line, fg="red", log_func=_error)


def progress(host: Host, line: str) -> None:
    """Show a line that the next one of the same host replaces, where it can be: how far long work is."""
    _show(host, printable(line))


def _print(host: Host, line: str) -> None:
    echo(f"{host.print_prefix}{line}", err=True)


_show: Show = _print


@contextmanager
def progress_shown_by(show: Show) -> Iterator[None]:
    """Have lines of progress shown by a function instead of printed one below the other."""
    global _show
    before, _show = _show, show
    try:
        yield
    finally:
        _show = before
