"""What a file on this host is: kind, digest, mode, owners; and whether it is as planned."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable, Sequence
from typing import Any

from muster.on_host import whole_files

Json = dict[str, Any]

_TEXT_LIMIT = 65536


def describe(root: str, path: str, planned: str | None, text: bool) -> Json:
    """Return digest, mode and owners of one path; {"kind": "missing"} where there is nothing."""
    try:
        status = os.lstat(root + path)
    except (FileNotFoundError, NotADirectoryError):
        return {"kind": "missing"}
    if not stat.S_ISREG(status.st_mode):
        return {"kind": "link" if stat.S_ISLNK(status.st_mode) else "other"}
    facts = {
        "kind": "file",
        "sha256": whole_files.sha256(root + path),
        "mode": format(stat.S_IMODE(status.st_mode), "o"),
        "owner": _name(pwd.getpwuid, status.st_uid),
        "group": _name(grp.getgrgid, status.st_gid),
    }
    if text and planned and facts["sha256"] != planned and status.st_mode & 0o004:
        facts["text"] = whole_files.read_start(root + path, _TEXT_LIMIT) or ""
    return facts


def is_as_planned(root: str, item: Json) -> bool:
    """Whether a planned file {path, sha256, mode, owner, group} is in place."""
    now = describe(root, item["path"], None, False)
    return all(now.get(key) == item[key] for key in ("sha256", "mode", "owner", "group"))


def _name(lookup: Callable[[int], Sequence[Any]], number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)
