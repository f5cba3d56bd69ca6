"""Where recipes, templates, deploy scripts and examples are: at the top of a clone, or inside the installed package."""

from __future__ import annotations

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
