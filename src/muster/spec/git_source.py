"""`git URL@COMMIT`: files in somebody's repository, as a user names them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from muster.errors import Refusal, shown
from muster.on_host.transfer_store import is_commit

WORD = "git "
_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?"
_URL = re.compile(
    rf"(https://{_HOST}|ssh://([A-Za-z0-9_][A-Za-z0-9._-]{{0,63}}@)?{_HOST}|file://)(/[A-Za-z0-9._~+%-]{{1,255}}){{1,32}}/?"
)
"""No password, since a recipe keeps it; no `ext::` and no `git@host:path`, since git reads more into those."""
_REF = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+/-]{0,126}[A-Za-z0-9_+-])?")


def repository(value: str) -> str:
    """Let the address of a git repository through."""
    if not _URL.fullmatch(value):
        raise ValueError("https://host/path, ssh://user@host/path or file:///path, without password and blanks")
    return value


Repository = Annotated[str, AfterValidator(repository)]


@dataclass(frozen=True)
class GitSource:
    """A tree in a repository.

    Args:
        repository: its address.
        ref: a commit of 40 digits, a tag or a branch.
    """

    repository: str
    ref: str

    @property
    def commit(self) -> str | None:
        """The commit, where the reference is one and cannot move."""
        return self.ref if is_commit(self.ref) else None


def parse(value: str) -> GitSource:
    """Return what `git URL@COMMIT` names.

    Raises:
        Refusal: another form, or an address or reference that git could read as something else.
    """
    url, _, ref = value.removeprefix(WORD).strip().rpartition("@")
    try:
        if not _REF.fullmatch(ref) or ".." in ref or "//" in ref:
            raise ValueError("a commit, tag or branch after the @")
        return GitSource(repository(url), ref)
    except ValueError as error:
        raise Refusal(
            f"'{shown(value)}' names no files in git",
            needed=str(error),
            fix="write for example 'git https://github.com/vllm-project/recipes@COMMIT'",
        ) from None
