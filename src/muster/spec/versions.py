"""Dotted versions in texts, as numbers that compare."""

from __future__ import annotations

import re

_VERSION = re.compile(r"\d{1,6}(?:\.\d{1,6}){1,3}")


def version_text(text: str | None) -> str:
    """Return the first dotted version in a text, or nothing."""
    found = _VERSION.search((text or "")[:4096])
    return found.group() if found else ""


def version(text: str | None) -> tuple[int, ...] | None:
    """Return the first dotted version in a text as numbers: `580.159.04` is (580, 159, 4)."""
    found = version_text(text)
    return tuple(int(part) for part in found.split(".")) if found else None
