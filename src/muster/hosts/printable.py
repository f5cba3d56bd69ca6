"""The one filter for what hosts sent, as text and as JSON data: what a terminal would act on is taken out. Pure."""

from __future__ import annotations

import math
from typing import Any

from muster.guard.printable_text import one_line, printable

__all__ = ["one_line", "printable", "printable_data"]

_DEPTH = 24
_NUMBER = 2**63


def printable_data(value: Any, depth: int = 0, *, finite: bool = True) -> Any:
    """Return JSON data with every string and key printable.

    Args:
        value: as `json.loads` returns it.
        depth: at which it is nested.
        finite: refuse numbers out of all bounds.

    Raises:
        ValueError: it is nested too deep, or holds a number that no program of ours sends.
    """
    if depth > _DEPTH:
        raise ValueError(f"it is nested more than {_DEPTH} levels deep")
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): printable_data(item, depth + 1, finite=finite) for key, item in value.items()}
    if isinstance(value, list):
        return [printable_data(item, depth + 1, finite=finite) for item in value]
    if finite and isinstance(value, (int, float)) and not (math.isfinite(value) and abs(value) < _NUMBER):
        raise ValueError("it holds a number out of all bounds")
    return value
