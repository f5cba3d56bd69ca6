"""This host's copies of a model's weights: probe, verify, link the current one, prune the unused."""

from __future__ import annotations

import glob
import os
from typing import Any

from muster.on_host import (
    kept_loaders,
    kept_rate,
    path_users,
    safe_paths,
    transfer_chunks,
    transfer_room,
    whole_files,
)
from muster.on_host import transfer_store as store

LINK = "current"
_NOT_PINNED = "not what is pinned"


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command and return its answer.

    Args:
        request: `do`: `probe` (names, sizes and times only), `missing` (how many bytes of each of `files` are here,
            for the sender; directories are made), `verify` (read every byte of `files`; a wrong file loses its stamp),
            `link` (point `current` to the revision) or `prune`. `directory`: of the revision; `manifest`: digest of
            the pin, which this host's own manifest has to match; `files`: of the pin; `keep` [path] for `prune`,
            which removes every other revision of that model that nothing on this host uses.
            `etc`, `proc` (tests): where to search units and processes.
    """
    commands = {"probe": probe, "missing": missing, "verify": verify, "link": link, "prune": prune}
    return commands[request["do"]](request)


def probe(request: dict[str, Any]) -> dict[str, Any]:
    """Return what the directory holds, where `current` points, the model's other revisions, and what was measured."""
    directory = request["directory"]
    model = os.path.dirname(directory)
    state = pinned_state(directory, request["manifest"])
    state["manifest"] = state["manifest"] and digest_of(state["manifest"])
    # Good files only as a count: the answer stays small with any number of shards.
    state["good"] = len(state["good"])
    state["link"] = os.path.basename(_target(os.path.join(model, LINK)))
    state["revisions"] = revisions(model)
    state["rate"], state["loaders"] = kept_rate.of(directory), kept_loaders.of(directory)
    return state


def pinned_state(directory: str, pinned: str) -> dict[str, Any]:
    """Return `transfer_store.state_of`; a manifest that is not the pin's makes nothing good, whatever it says.

    Args:
        directory: of the revision.
        pinned: digest of the pin's files, from the control machine.
    """
    state = store.state_of(directory)
    if state["manifest"] and digest_of(state["manifest"]) != pinned:
        state |= {"complete": False, "good": [], "wrong": {store.MANIFEST: _NOT_PINNED, **state["wrong"]}}
    return state


def missing(request: dict[str, Any]) -> dict[str, Any]:
    """Return {path: bytes here} of the files that are not whole, ready to be appended to.

    A file that has changed since it was verified is read; a damaged one becomes the start of its own repair.
    """
    directory, partial = request["directory"], {}
    transfer_room.make_own(directory)
    files = {entry["path"]: entry for entry in request["files"]}
    whole = _whole(directory, files)
    for entry in files.values():
        path = store.inside(directory, entry["path"])
        if entry["path"] in whole:
            continue
        safe_paths.make_directory(os.path.dirname(path))
        size = 0
        if os.path.lexists(path + store.WAN):
            store.take_over(path + store.WAN)
            size = os.path.getsize(path + store.WAN)
        if size > entry["size"]:
            os.truncate(path + store.WAN, 0)
            size = 0
        partial[entry["path"]] = size
    return {"missing": partial}


def _whole(directory: str, files: dict[str, dict[str, Any]]) -> set[str]:
    stamps = store.Stamps(directory)
    chunk = transfer_chunks.chunk_size(sum(int(entry["size"]) for entry in files.values()))
    known = transfer_chunks.known_chunks(directory, chunk, list(files.values()))

    def right(name: str) -> bool:
        path, sha256 = store.inside(directory, name), files[name]["sha256"]
        if not os.path.lexists(path):
            return False
        if stamps.trusts(name, sha256):
            return True
        store.take_over(path)
        found, hashes = transfer_chunks.digests(path, chunk)
        if found == sha256:
            stamps.add(name, sha256)
            return True
        stamps.drop(name)
        transfer_chunks.keep_good_start(path, hashes, known.get(name, []), chunk)
        return False

    return {name for name, here in store.in_parallel(right, files).items() if here}


def digest_of(manifest: dict[str, Any]) -> str:
    """Return one digest of a manifest: of every path, size and SHA-256."""
    return store.listing_digest(manifest["files"])


def verify(request: dict[str, Any]) -> dict[str, Any]:
    """Read every file of the pin; a wrong one loses its stamp, so that staging repairs it.

    What a file has to be comes from the control machine; this host's own manifest is only compared with it.
    """
    directory = request["directory"]
    if not os.path.isdir(directory):
        raise OSError(f"{directory} is not here; fix: stage it first")
    pinned = {entry["path"]: entry for entry in request["files"]}
    wrong = store.verify(directory, pinned)
    stamps = store.Stamps(directory)
    for path in wrong:
        stamps.drop(path)
    for path in pinned.keys() - wrong.keys():
        if not stamps.trusts(path, pinned[path]["sha256"]):
            stamps.add(path, pinned[path]["sha256"])
    manifest = store.manifest_of(directory)
    if manifest is None or digest_of(manifest) != request["manifest"]:
        wrong[store.MANIFEST] = _NOT_PINNED if manifest else "missing"
    extra = sorted(set(store.walk(directory)) - set(pinned))
    read = sum(entry["size"] for entry in pinned.values())
    return {"wrong": wrong, "extra": extra, "files": len(pinned), "bytes": read}


def link(request: dict[str, Any]) -> dict[str, Any]:
    """Point `current` to the revision, atomically.

    Raises:
        OSError: the revision is not complete, or not what is pinned.
    """
    directory = request["directory"]
    transfer_room.check_own(directory)
    state = pinned_state(directory, request["manifest"])
    if not state["complete"]:
        why = "; ".join(f"{path}: {fault}" for path, fault in list(state["wrong"].items())[:3])
        raise OSError(f"{directory} is not complete{f' ({why})' if why else ''}; `{LINK}` was left unchanged")
    place = os.path.join(os.path.dirname(directory), LINK)
    name = os.path.basename(directory)
    if _target(place) == name:
        return {"changed": False}
    if os.path.lexists(place) and not os.path.islink(place):
        raise OSError(f"{place} is no link of muster's; it was left unchanged; fix: move it elsewhere")
    safe_paths.remove_file(place + ".muster-new")
    os.symlink(name, place + ".muster-new")
    os.rename(place + ".muster-new", place)
    whole_files.sync_directory(os.path.dirname(place))
    return {"changed": True}


def prune(request: dict[str, Any]) -> dict[str, Any]:
    """Remove the revisions of a model that nothing on this host uses; with `dry`, only name them."""
    model = os.path.dirname(request["directory"])
    transfer_room.check_own(model)
    keep = {os.path.basename(path) for path in (*request.get("keep", ()), request["directory"])}
    keep.add(os.path.basename(_target(os.path.join(model, LINK))))
    removed, kept = {}, {}
    for name, size in revisions(model).items():
        path = os.path.join(model, name)
        users = path_users.users_of(path, request.get("etc", "/etc"), request.get("proc", "/proc"))
        if name in keep or users:
            kept[name] = users[0] if users else "current or pinned"
            continue
        if not staged_here(path):
            kept[name] = "not staged by muster"
            continue
        removed[name] = size
        if not request.get("dry"):
            # Rename first: an interrupted removal leaves no revision that looks whole.
            os.rename(path, path + ".removing")
    if not request.get("dry"):
        for path in glob.glob(glob.escape(model) + "/*.removing"):
            if store.is_commit(os.path.basename(path).removesuffix(".removing")):
                safe_paths.remove_below(path)
        for name in removed:
            for suffix in (".lock", kept_rate.SUFFIX, kept_loaders.SUFFIX):
                safe_paths.remove_file(os.path.join(model, name + suffix))
    return {"removed": removed, "kept": kept, "free": store.free(model)}


def staged_here(path: str) -> bool:
    """Whether a directory has the lock or a record of a staging: what merely bears such a name is its owner's."""
    return any(os.path.lexists(place) for place in (path + ".lock", *(os.path.join(path, n) for n in store.RECORDS)))


def revisions(model: str) -> dict[str, int]:
    """Return the revisions of a model on this host, and the bytes that each takes."""
    sizes = {}
    for name in sorted(os.listdir(model)) if os.path.isdir(model) else ():
        if store.is_commit(name):
            files = store.walk(os.path.join(model, name)).values()
            sizes[name] = sum(status.st_blocks * 512 for status in files)
    return sizes


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
