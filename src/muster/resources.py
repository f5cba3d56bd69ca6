"""Where recipes, templates, deploy scripts and examples are (in a clone or the installed package), and the cache."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CLONE = _PACKAGE.parent.parent


def directory(name: str) -> Path:
    """Return the directory of bundled data called `name`, such as `recipes`, `templates` or `inventories`.

    A clone and an installed wheel behave the same: the wheel carries these directories under `muster/_data`.

    Raises:
        FileNotFoundError: if neither is there; the installation is broken.
    """
    for candidate in (_PACKAGE / "_data" / name, _CLONE / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"muster's own directory '{name}' is missing; reinstall vllm-muster")


def cache() -> Path:
    """Return the directory on this machine for what can be fetched again; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "muster"
