"""Sources of a probe: each answers {"value": ...} or {"error": ...}, so that none costs another."""

from __future__ import annotations

import re
from typing import Any, Callable

from muster.on_host import run_command

Json = dict[str, Any]

SECONDS = 20.0
LIMIT = 256 * 1024


def answered(source: Callable[[], Any]) -> Json:
    """Return a source's value, or why it has none."""
    try:
        return {"value": source()}
    except Exception as error:
        return {"error": str(error)[:500] or type(error).__name__}


def tool(
    argv: list[str],
    seconds: float = SECONDS,
    *,
    limit: int = LIMIT,
    keep: re.Pattern[bytes] | None = None,
    stdin: str = "",
) -> Json:
    """Run a tool as `run_command.finish` does and return the outcome as JSON.

    Raises:
        OSError: the tool is missing, or missed its deadline.
    """
    done = run_command.finish(argv, seconds, limit=limit, keep=keep, stdin=stdin)
    return {
        "rc": done.status,
        "text": done.output,
        "stderr": done.errors[:2048],
        "truncated": done.truncated,
        "lines": done.lines,
    }
