"""Packages that vLLM's recipe catalogue installs besides the engine, out of the text of its commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from muster.spec.safe_text import package_name, requirement


def read(command: str) -> list[str] | None:
    """Return the requirements of `uv pip install …`, or None where a recipe cannot hold all that the command does.

    A recipe's packages come from the engine's own index: a command that names another index, a file or an option that
    changes what is installed is not carried over, nor is one that pins the engine, which a setting does.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    start = 1 if words[:1] == ["uv"] else 0
    if words[start : start + 2] != ["pip", "install"]:
        return None
    try:
        found = list(_requirements(iter(words[start + 2 :])))
    except ValueError:
        return None
    pinned = any(package_name(each) == "vllm" and "==" in each for each in found)
    return None if pinned else found


def _requirements(words: Iterator[str]) -> Iterator[str]:
    for word in words:
        if word == "--torch-backend":  # the setting says which
            next(words, None)
        elif word not in ("-U", "--upgrade"):
            yield requirement(word)
