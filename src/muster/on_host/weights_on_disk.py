"""This host's copies of a model's weights: probe, verify, link the current one, prune the unused."""

from __future__ import annotations

import glob
import os
import re
import shutil
from typing import Any

from muster.on_host import transfer_store as store
from muster.on_host import whole_files

LINK = "current"
_REVISION = re.compile(r"[0-9a-f]{40}")


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command and return its answer.

    Args:
        request: `do`: `probe` (names, sizes and times only), `missing` (how many bytes of each of `files` are here,
            for the sender; directories are made), `verify` (read every byte; a wrong file loses its stamp),
            `link` (point `current` to the revision) or `prune`. `directory`: of the revision; `keep` [path] for
            `prune`, which removes every other revision of that model that nothing on this host uses.
            `etc`, `proc` (tests): where to search units and processes.
    """
    commands = {"probe": probe, "missing": missing, "verify": verify, "link": link, "prune": prune}
    return commands[request["do"]](request)


def probe(request: dict[str, Any]) -> dict[str, Any]:
    """Return what the directory holds, where `current` points, and the model's other revisions."""
    directory = request["directory"]
    model = os.path.dirname(directory)
    pinned = request.get("manifest")
    state = store.state_of(directory)
    if state["manifest"] and pinned and digest_of(state["manifest"]) != pinned:
        state["complete"] = False
    state["manifest"] = state["manifest"] and digest_of(state["manifest"])
    # Good files only as a count: the answer stays small with any number of shards.
    state["good"] = len(state["good"])
    state["link"] = os.path.basename(_target(os.path.join(model, LINK)))
    state["revisions"] = revisions(model)
    return state


def missing(request: dict[str, Any]) -> dict[str, Any]:
    """Return {path: bytes here} of the files that are not whole, ready to be appended to."""
    directory, partial = request["directory"], {}
    for entry in request["files"]:
        path = store.inside(directory, entry["path"])
        if os.path.exists(path) and os.path.getsize(path) == entry["size"]:
            continue
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        size = os.path.getsize(path + store.WAN) if os.path.exists(path + store.WAN) else 0
        if size > entry["size"]:
            os.truncate(path + store.WAN, 0)
            size = 0
        partial[entry["path"]] = size
    return {"missing": partial}


def digest_of(manifest: dict[str, Any]) -> str:
    """Return one digest of a manifest: of every path, size and SHA-256."""
    return store.listing_digest(manifest["files"])


def verify(request: dict[str, Any]) -> dict[str, Any]:
    """Read every file of a complete revision; a wrong one loses its stamp, so that staging repairs it."""
    directory = request["directory"]
    manifest = whole_files.read_json(os.path.join(directory, store.MANIFEST))
    if not manifest:
        raise OSError(f"{directory} is not complete: it has no manifest; fix: stage it first")
    wrong = store.verify(directory, manifest["files"])
    stamps = store.Stamps(directory)
    for path in wrong:
        stamps.drop(path)
    for path in set(manifest["files"]) - set(wrong):
        if not stamps.trusts(path, manifest["files"][path]["sha256"]):
            stamps.add(path, manifest["files"][path]["sha256"])
    extra = sorted(set(store.walk(directory)) - set(manifest["files"]))
    read = sum(entry["size"] for entry in manifest["files"].values())
    return {"wrong": wrong, "extra": extra, "files": len(manifest["files"]), "bytes": read}


def link(request: dict[str, Any]) -> dict[str, Any]:
    """Point `current` to the revision, atomically.

    Raises:
        OSError: the revision is not complete.
    """
    directory = request["directory"]
    if not store.state_of(directory)["complete"]:
        raise OSError(f"{directory} is not complete; `{LINK}` was left unchanged")
    place = os.path.join(os.path.dirname(directory), LINK)
    name = os.path.basename(directory)
    if _target(place) == name:
        return {"changed": False}
    whole_files.remove(place + ".muster-new")
    os.symlink(name, place + ".muster-new")
    os.rename(place + ".muster-new", place)
    whole_files.sync_directory(os.path.dirname(place))
    return {"changed": True}


def prune(request: dict[str, Any]) -> dict[str, Any]:
    """Remove the revisions of a model that nothing on this host uses; with `dry`, only name them."""
    model = os.path.dirname(request["directory"])
    keep = {os.path.basename(path) for path in (*request.get("keep", ()), request["directory"])}
    keep.add(os.path.basename(_target(os.path.join(model, LINK))))
    removed, kept = {}, {}
    for name, size in revisions(model).items():
        path = os.path.join(model, name)
        users = used_by(path, request.get("etc", "/etc"), request.get("proc", "/proc"))
        if name in keep or users:
            kept[name] = users[0] if users else "current or pinned"
            continue
        removed[name] = size
        if not request.get("dry"):
            # Rename first: an interrupted removal leaves no revision that looks whole.
            os.rename(path, path + ".removing")
    if not request.get("dry"):
        for path in glob.glob(glob.escape(model) + "/*.removing"):
            shutil.rmtree(path)
        for name in removed:
            whole_files.remove(os.path.join(model, name + ".lock"))
    return {"removed": removed, "kept": kept, "free": store.free(model)}


def revisions(model: str) -> dict[str, int]:
    """Return the revisions of a model on this host, and the bytes that each takes."""
    sizes = {}
    for name in sorted(os.listdir(model)) if os.path.isdir(model) else ():
        if _REVISION.fullmatch(name):
            files = store.walk(os.path.join(model, name)).values()
            sizes[name] = sum(status.st_blocks * 512 for status in files)
    return sizes


def used_by(path: str, etc: str = "/etc", proc: str = "/proc") -> list[str]:
    """Return the unit files, group files and processes that name a path."""
    users = []
    name_bytes = path.encode()
    for pattern in ("/systemd/system/muster-*", "/muster/*/*"):
        for name in glob.glob(glob.escape(etc) + pattern):
            if name_bytes in _read(name):
                users.append(name)
    for name in glob.glob(glob.escape(proc) + "/[0-9]*/cmdline"):
        if name_bytes in _read(name) and name.split("/")[-2] != str(os.getpid()):
            users.append("process " + name.split("/")[-2])
    return users


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(1 << 20)
    except OSError:
        return b""


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
