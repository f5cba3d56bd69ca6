"""Lines of progress for whoever watches a host program work."""

from __future__ import annotations


def say(line: str) -> None:
    """Print one line of progress."""
    print(line, flush=True)
