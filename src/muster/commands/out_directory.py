"""Files that a command writes below the directory of its `--out`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]


def option(command: Command) -> Command:
    """Give a command `--out`, a directory."""
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("--out", required=True, type=kind, help="Directory of the files.")(command)


def write(out: Path, files: Mapping[str, str]) -> None:
    """Write texts by their path below a directory."""
    for path, text in files.items():
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
