"""Parse uv's `pylock.toml`: every package, the one file of it that fits, and that file's SHA-256.

Python 3.9 has no TOML parser. uv writes one key per line, and for each package the wheels that fit the Python and
platform it resolved for, such as a compiled and a pure Python one. Anything else is refused, never overlooked.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote, urlsplit

_FILE = re.compile(r'\{ (?P<head>[^{}]*?)hashes = \{ sha256 = "(?P<sha256>[0-9a-f]{64})" \}')
_WHERE = re.compile(r'\b(url|path) = "([^"]+)"')
_SIZE = re.compile(r"\bsize = (\d{1,15})\b")
# All of these enter lines and paths: a line break in a name would be an option of uv's.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,200}[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,100}")
_BASENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,250}")
_ADDRESS = re.compile(r"[a-z]{3,8}://[!-~]{1,4000}")


def parse(text: str, base: str) -> list[dict[str, Any]]:
    """Return {name, version, kind, file, url, sha256, size} of every package; size may be None.

    Args:
        text: of the lock.
        base: directory of the lock; relative paths start there.

    Raises:
        ValueError: it is no lock, or a package has no file with a SHA-256, such as one from a repository.
    """
    head, *blocks = text.split("[[packages]]\n")
    if "lock-version" not in head:
        raise ValueError("it has no lock-version")
    return [_package(block, base) for block in blocks]


def _package(block: str, base: str) -> dict[str, Any]:
    fields = dict(re.findall(r'^(name|version) = "([^"]+)"$', block, re.M))
    for kind in ("wheels", "archive", "sdist"):
        value = re.search(rf"^{kind} = (.*?)(?=^\w|\Z)", block, re.M | re.S)
        files = list(_FILE.finditer(value.group(1))) if value else []
        if not files:
            continue
        candidates = [(*_file(file["head"], base), file["sha256"]) for file in files if _WHERE.search(file["head"])]
        if not candidates:
            break
        file, url, size, sha256 = max(candidates, key=lambda each: _fit(each[0]))
        version = fields.get("version") or [*file.split("-"), ""][1]
        for value, rule in ((fields.get("name", ""), _NAME), (version, _VERSION), (file, _BASENAME), (url, _ADDRESS)):
            if not rule.fullmatch(value):
                raise ValueError(f"{value[:80]!r} is no name, version, file or address of a package")
        return {
            "name": fields["name"],
            "version": version,
            "kind": "wheel" if file.endswith(".whl") else "sdist",
            "direct": kind == "archive",
            "file": file,
            "url": url,
            "sha256": sha256,
            "size": size,
        }
    raise ValueError(f"{fields.get('name')} has no file whose SHA-256 is known; name a wheel of it instead")


def _file(head: str, base: str) -> tuple[Any, ...]:
    """Return name, address and bytes of one file, from the text before its hashes."""
    where, size = _WHERE.search(head), _SIZE.search(head)
    assert where is not None
    url = where[2] if where[1] == "url" else "file://" + os.path.normpath(os.path.join(base, where[2]))
    return os.path.basename(unquote(urlsplit(url).path)), url, int(size[1]) if size else None


def _fit(file: str) -> tuple[Any, ...]:
    """Return a sort key that orders wheels as installers do, the best last: ABI, Python, platform, build number.

    Source: the order of tags in the packaging specification "Platform compatibility tags".
    """
    parts = file[: -len(".whl")].split("-") if file.endswith(".whl") else []
    if len(parts) < 5:
        return (0,)
    python, abi, platform = (part.split(".") for part in parts[-3:])
    own = max((2 if name.startswith("cp") else 1 if name == "abi3" else 0) for name in abi)
    minors = [int(match[1]) for name in python for match in [re.match(r"[a-z]+3(\d+)$", name)] if match]
    glibc = [int(match[1]) for name in platform for match in [re.match(r"manylinux_2_(\d+)_", name)] if match]
    build = re.match(r"\d+", parts[2]) if len(parts) == 6 else None
    any_platform = platform == ["any"]
    return (1, not any_platform, own, max(minors, default=0), max(glibc, default=0), int(build[0]) if build else 0)


def requirements(packages: list[dict[str, Any]], *, gathered: bool) -> list[str]:
    """Return requirements with which `uv pip install --require-hashes --no-deps` installs exactly these files.

    Args:
        packages: from `parse`.
        gathered: whether all files are in one directory, where even those named by address are found by name.
    """
    lines = []
    for package in packages:
        what = "{name} @ {url}" if package["direct"] and not gathered else "{name}=={version}"
        lines.append(what.format(**package) + " --hash=sha256:" + package["sha256"])
    return lines
