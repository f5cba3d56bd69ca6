"""What a `pylock.toml` of uv names: every package, the one file of it that fits, and that file's SHA-256.

Python 3.9 has no TOML parser. uv writes one key a line and one wheel a package, the one that fits the Python and the
platform that it resolved for; whatever else stands there is refused, and so is never overlooked.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote, urlsplit

_FILE = re.compile(r'\{ (?P<head>[^{}]*?)hashes = \{ sha256 = "(?P<sha256>[0-9a-f]{64})" \}')
_WHERE = re.compile(r'\b(url|path) = "([^"]+)"')
_SIZE = re.compile(r"\bsize = (\d+)")


def parse(text: str, base: str) -> list[dict[str, Any]]:
    """Return {name, version, kind, file, url, sha256, size} of every package; size is None where nobody told it.

    Args:
        text: of the lock.
        base: directory of the lock, from which relative paths lead.

    Raises:
        ValueError: it is none, or a package in it has no file with a SHA-256, such as one from a repository.
    """
    head, *blocks = text.split("[[packages]]\n")
    if "lock-version" not in head:
        raise ValueError("it has no lock-version")
    return [_package(block, base) for block in blocks]


def _package(block: str, base: str) -> dict[str, Any]:
    named = dict(re.findall(r'^(name|version) = "([^"]+)"$', block, re.M))
    for kind in ("wheels", "archive", "sdist"):
        found = re.search(rf"^{kind} = (.*?)(?=^\w|\Z)", block, re.M | re.S)
        files = list(_FILE.finditer(found.group(1))) if found else []
        if not files:
            continue
        if len(files) > 1:
            raise ValueError(f"{len(files)} wheels of {named.get('name')} fit; one was expected")
        where, size = _WHERE.search(files[0]["head"]), _SIZE.search(files[0]["head"])
        if where is None:
            break
        url = where[2] if where[1] == "url" else "file://" + os.path.normpath(os.path.join(base, where[2]))
        file = os.path.basename(unquote(urlsplit(url).path))
        return {
            "name": named["name"],
            "version": named.get("version") or file.split("-")[1],
            "kind": "wheel" if file.endswith(".whl") else "sdist",
            "direct": kind == "archive",
            "file": file,
            "url": url,
            "sha256": files[0]["sha256"],
            "size": int(size[1]) if size else None,
        }
    raise ValueError(f"{named.get('name')} has no file whose SHA-256 is known; name a wheel of it instead")


def requirements(packages: list[dict[str, Any]], *, gathered: bool) -> list[str]:
    """Return the lines with which `uv pip install --require-hashes --no-deps` installs these files and no others.

    Args:
        packages: as `parse` gives them.
        gathered: whether all files lie in one directory; what was named by its address is there found by its name.
    """
    lines = []
    for package in packages:
        what = "{name} @ {url}" if package["direct"] and not gathered else "{name}=={version}"
        lines.append(what.format(**package) + " --hash=sha256:" + package["sha256"])
    return lines
