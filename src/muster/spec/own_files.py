"""Files that a recipe brings: chat templates and parser plugins, in the recipe itself or beside its file."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from muster.errors import Refusal
from muster.on_host.whole_files import text_sha256
from muster.spec.safe_text import Line, path_segment

LARGEST = 1 << 20
"""Bytes of one file; the largest chat template of vLLM's own has 40 KiB."""
SUFFIXES = (".jinja", ".py")
"""A template, and a plugin, which is code. Nothing else beside a stranger's recipe is read."""


def _name(value: str) -> str:
    if not path_segment(value).endswith(SUFFIXES):
        raise ValueError(f"the name of a file that ends in {' or '.join(SUFFIXES)}, without a directory")
    return value


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("a SHA-256 of 64 lower-case hexadecimal digits")
    return value


FileName = Annotated[str, AfterValidator(_name)]


class OwnFile(BaseModel):
    """One file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = None
    """None reads it from beside the recipe's file, under the same name."""
    sha256: Annotated[str, AfterValidator(_sha256)] | None = None
    """Another text is refused."""
    source: Line = ""
    """Where it comes from, for people: a path in vLLM's source and the tag, for example."""

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return text_sha256(self.text or "")


def read(files: Mapping[str, OwnFile], directory: Path | None, *, where: str) -> dict[str, OwnFile]:
    """Return a recipe's files with their texts.

    Args:
        files: by name.
        directory: of the recipe's file; None where the recipe came from no file.
        where: name of the recipe's file, for messages.

    Raises:
        Refusal: a file is missing, no plain text file of its own, too large, or other than its SHA-256 says.
    """
    whole = {}
    for name, file in files.items():
        text = file.text if file.text is not None else _beside(directory, name, where)
        if "\0" in text or len(text.encode("utf-8", "surrogatepass")) > LARGEST:
            raise Refusal(f"{where}: {name} is too large or holds a NUL", needed=f"text of at most {LARGEST:,} bytes")
        found = file.model_copy(update={"text": text})
        if file.sha256 not in (None, found.digest):
            raise Refusal(
                f"{where}: {name} has SHA-256 {found.digest}",
                needed=f"{file.sha256}, as the recipe says",
                fix="put the file back, or look at what changed in it and write its SHA-256 into the recipe",
            )
        whole[name] = found
    return whole


def _beside(directory: Path | None, name: str, where: str) -> str:
    if directory is None:
        raise Refusal(f"{where}: {name} has no text", needed="the text in the recipe", fix=f"give files.{name}.text")
    return plain_text(directory / name, fix=f"put it beside {where}, or its text into files.{name}.text")


def plain_text(path: Path, *, fix: str) -> str:
    """Return the text of a plain file; more than LARGEST bytes come as LARGEST and one.

    Args:
        path: of the file.
        fix: what to do where it cannot be read.

    Raises:
        Refusal: it is missing, a link, no plain file, or not UTF-8.
    """
    try:
        # A link beside a stranger's recipe could name any file of this machine.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Refusal(f"{path} is no plain file", needed="a text file", fix=fix)
            return file.read(LARGEST + 1).decode("utf-8")
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}", needed="a text file that is no link", fix=fix) from None
    except ValueError:
        raise Refusal(f"{path} is not UTF-8", needed="a text file", fix=fix) from None


def below(directory: Path) -> dict[str, str]:
    """Return the templates and plugins of a directory and of its `examples`, by path from there.

    Raises:
        Refusal: one of them cannot be read.
    """
    places = [path for pattern in ("*", "examples/*") for path in sorted(directory.glob(pattern))]
    return {
        path.relative_to(directory).as_posix(): plain_text(path, fix="look at that directory")
        for path in places
        if path.name.endswith(SUFFIXES) and path.is_file() and not path.is_symlink()
    }
