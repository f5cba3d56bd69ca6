"""Bytes and seconds for people."""

from __future__ import annotations

_UNITS = (("TiB", 40, 1), ("GiB", 30, 1), ("MiB", 20, 0), ("KiB", 10, 0))


def size(count: float) -> str:
    """Return bytes in words: `1.5 TiB`, `958 GiB`, `3.1 GiB`, `512 MiB`, `4 KiB`, `7 bytes`."""
    for name, shift, digits in _UNITS:
        if count >= 1 << shift:
            value = count / (1 << shift)
            return f"{value:.{digits if value < 100 else 0}f} {name}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """Return seconds in words: `90 s`, `14 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
