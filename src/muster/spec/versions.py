"""Dotted versions in texts, as numbers that compare."""

from __future__ import annotations

import re

_VERSION = re.compile(r"\d{1,6}(?:\.\d{1,6}){1,3}")


def version_text(text: str | None) -> str:
    """Return the first dotted version in a text, or nothing."""
    match = _VERSION.search((text or "")[:4096])
    return match.group() if match else ""


def version(text: str | None) -> tuple[int, ...] | None:
    """Return the first dotted version in a text as numbers: `580.159.04` is (580, 159, 4)."""
    dotted = version_text(text)
    return tuple(int(part) for part in dotted.split(".")) if dotted else None
