"""What this host has of the models' weights: look, read it all again, link what is in use, remove what is not."""

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
    """Do one thing and return what was found or done.

    Args:
        request: `do`: `look` (names, sizes and times only), `lacks` (how far each of `files` is, for one who sends
            them; directories are made), `verify` (read every byte; what is wrong loses its note),
            `link` (`current` leads to the revision) or `prune`. `directory`: of the revision; `keep` [path] for
            `prune`, which removes every other revision of that model that nothing on this host uses.
            `etc`, `proc` (tests): where units and processes are looked for.
    """
    parts = {"look": look, "lacks": lacks, "verify": verify, "link": link, "prune": prune}
    return parts[request["do"]](request)


def look(request: dict[str, Any]) -> dict[str, Any]:
    """Return what lies in the directory, what `current` leads to, and the model's other revisions."""
    directory = request["directory"]
    model = os.path.dirname(directory)
    wanted = request.get("manifest")
    found = store.look(directory)
    if found["manifest"] and wanted and digest_of(found["manifest"]) != wanted:
        found["complete"] = False
    found["manifest"] = found["manifest"] and digest_of(found["manifest"])
    # Bytes and names are told, the list of good files only as a number: answers stay small with any number of shards.
    found["good"] = len(found["good"])
    found["link"] = os.path.basename(_target(os.path.join(model, LINK)))
    found["revisions"] = revisions(model)
    found["python"] = [path for path in request.get("pythons", ()) if os.access(path, os.X_OK)]
    return found


def lacks(request: dict[str, Any]) -> dict[str, Any]:
    """Return {path: bytes that are here} of the files that are not whole, ready to be appended to."""
    directory, told = request["directory"], {}
    for entry in request["files"]:
        path = store.inside(directory, entry["path"])
        if os.path.exists(path) and os.path.getsize(path) == entry["size"]:
            continue
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        size = os.path.getsize(path + store.WAN) if os.path.exists(path + store.WAN) else 0
        if size > entry["size"]:
            os.truncate(path + store.WAN, 0)
            size = 0
        told[entry["path"]] = size
    return {"lacks": told}


def digest_of(manifest: dict[str, Any]) -> str:
    """Return the digest that stands for a manifest: of every path, size and SHA-256."""
    return store.listing_digest(manifest["files"])


def verify(request: dict[str, Any]) -> dict[str, Any]:
    """Read every file of a complete revision; the note of a wrong one is dropped, so that staging mends it."""
    directory = request["directory"]
    manifest = whole_files.read_json(os.path.join(directory, store.MANIFEST))
    if not manifest:
        raise OSError(f"{directory} is not complete: nothing says what should be in it; stage it first")
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
    """Let `current` lead to the revision, at once and whole.

    Raises:
        OSError: the revision is not complete.
    """
    directory = request["directory"]
    if not store.look(directory)["complete"]:
        raise OSError(f"{directory} is not complete; `{LINK}` was left as it is")
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
    """Remove the revisions of a model that nothing on this host uses; with `dry`, only say which."""
    model = os.path.dirname(request["directory"])
    keep = {os.path.basename(path) for path in (*request.get("keep", ()), request["directory"])}
    keep.add(os.path.basename(_target(os.path.join(model, LINK))))
    removed, kept = {}, {}
    for name, size in revisions(model).items():
        path = os.path.join(model, name)
        users = used_by(path, request.get("etc", "/etc"), request.get("proc", "/proc"))
        if name in keep or users:
            kept[name] = users[0] if users else "wanted"
            continue
        removed[name] = size
        if not request.get("dry"):
            # Away from its name first: a removal that is cut leaves no revision that looks whole.
            os.rename(path, path + ".removing")
    if not request.get("dry"):
        for path in glob.glob(glob.escape(model) + "/*.removing"):
            shutil.rmtree(path)
        for name in removed:
            whole_files.remove(os.path.join(model, name + ".lock"))
    return {"removed": removed, "kept": kept, "free": store.free(model)}


def revisions(model: str) -> dict[str, int]:
    """Return the revisions of a model that lie on this host, and the bytes that each takes."""
    found = {}
    for name in sorted(os.listdir(model)) if os.path.isdir(model) else ():
        if _REVISION.fullmatch(name):
            files = store.walk(os.path.join(model, name)).values()
            found[name] = sum(status.st_blocks * 512 for status in files)
    return found


def used_by(path: str, etc: str = "/etc", proc: str = "/proc") -> list[str]:
    """Return which unit files, group files and processes name a path."""
    found = []
    wanted = path.encode()
    for pattern in ("/systemd/system/muster-*", "/muster/*/*"):
        for name in glob.glob(glob.escape(etc) + pattern):
            if wanted in _read(name):
                found.append(name)
    for name in glob.glob(glob.escape(proc) + "/[0-9]*/cmdline"):
        if wanted in _read(name) and name.split("/")[-2] != str(os.getpid()):
            found.append("process " + name.split("/")[-2])
    return found


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
