"""Resolve a release into a lock with hashes, on one host for all, or take over another host's lock."""

from __future__ import annotations

import os
import tempfile
from typing import Any
from urllib.parse import unquote, urlsplit

from muster.on_host import (
    install_engine,
    mutex,
    places,
    progress_lines,
    pylock,
    run_command,
    safe_paths,
    transfer_download,
    whole_files,
)
from muster.on_host.http_bounds import HttpError, length_of

Json = dict[str, Any]

_LOCK_LIMIT = 16 << 20
_RESOLVING = 3600.0
"""Seconds: uv may have to build an sdist to learn its dependencies."""


def main(request: Json) -> Json:
    """Return {text} of a release's lock; with `resolve` also {sizes} of the files whose size the lock lacks.

    Args:
        request: `path` of the release and `resolve`. Without `resolve` the lock is only read; `text` is "" where there
            is none. With it: `text` of another host's lock or "", and as in `install_engine` `python`, `requirements`,
            `overrides`, `install_args`, `env`, `uv`, `uv_payload`, `python_dir`, `cache_dir`. A lock left by an
            interrupted run is kept. `root` (tests): where the file system begins.

    Raises:
        OSError: the last lines of uv.
    """
    root = request.get("root", "")
    place = root + places.resolution(request["path"])
    if not request["resolve"]:
        return {"text": read(place)}
    os.umask(0o022)
    uv = install_engine.bring_uv(root + request["uv"], request.get("uv_payload"))
    safe_paths.make_directory(os.path.dirname(place))
    with mutex.held(root + request["path"] + ".lock", "installs this release", minutes=30):
        if request["text"]:
            whole_files.write_whole(place, request["text"].encode())
        elif not read(place):
            resolve(request, uv, place, install_engine.environment(request, root))
    text = read(place)
    packages = packages_of(text, place)
    return {"text": text, "sizes": {p["file"]: size_of(p["url"], request) for p in packages if p["size"] is None}}


def read(place: str) -> str:
    """Return the text of a lock, "" where there is none."""
    try:
        return safe_paths.read_bounded(place, _LOCK_LIMIT).decode()
    except FileNotFoundError:
        return ""


def packages_of(text: str, place: str) -> list[Json]:
    """Return the packages of a lock.

    Raises:
        OSError: it is malformed.
    """
    try:
        return pylock.parse(text, os.path.dirname(place))
    except ValueError as error:
        raise OSError(f"{place}: {error}; fix: correct engine_requirements, or remove this file") from None


def resolve(request: Json, uv: str, place: str, env: dict[str, str]) -> None:
    """Let uv choose one file per package for this host's Python and platform.

    Raises:
        OSError: the last lines of uv.
    """
    progress_lines.say("resolving {}".format(" ".join(request["requirements"])))
    # uv insists on this form of name, and relative paths start in this directory.
    new = os.path.join(os.path.dirname(place), "pylock.new.toml")
    with tempfile.TemporaryDirectory() as home:
        wanted, overrides = os.path.join(home, "requirements.in"), os.path.join(home, "overrides.txt")
        whole_files.write_whole(wanted, "\n".join(request["requirements"]).encode() + b"\n")
        whole_files.write_whole(overrides, "\n".join(request["overrides"]).encode() + b"\n")
        command = [uv, "pip", "compile", wanted, "--format", "pylock.toml", "--generate-hashes", "--quiet"]
        command += ["--no-header", "--python", request["python"], "--output-file", new, *request["install_args"]]
        command += ["--override", overrides] if request["overrides"] else []
        done = run_command.finish(command, _RESOLVING, env={**env, "HOME": home})
    if done.status != 0:
        tail = "\n".join(line for line in done.errors.splitlines()[-15:] if line.strip())
        raise OSError(f"`uv pip compile` ended with {done.status}:\n{tail}")
    packages_of(read(new), new)
    safe_paths.rename(new, place)
    whole_files.sync_directory(os.path.dirname(place))


def size_of(url: str, request: Json) -> int:
    """Return the bytes of a file that an index or a directory offers.

    Raises:
        OSError: it is not there, or the index does not say.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return os.path.getsize(unquote(parts.path))
    source = request.get("source", {})
    where = parts.netloc.rpartition("@")[2]
    try:
        credentials = transfer_download.credentials_for(url, source)
        answer = transfer_download.client_of(source).get(url, limit=0, method="HEAD", credentials=credentials)
    except HttpError as error:
        raise OSError(f"{where} does not say how large {parts.path} is: {error}") from None
    length = length_of(answer.headers)
    if length is None:
        raise OSError(
            f"{where} does not say how large {parts.path} is (HEAD without Content-Length);"
            " fix: set engine_fanout = False: every host then asks the index itself"
        )
    return length
