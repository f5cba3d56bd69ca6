"""Keys of clients on an edge host: records merged, kept whole on the disk, and in effect in the running HAProxy.

A record is known by the SHA-256 of its key; the key itself is nowhere. Records are never removed, only marked revoked:
the union of two edges' records is right whichever of them missed a change.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from muster.on_host import edge_places, haproxy_socket, mutex, safe_paths, whole_files

Json = dict[str, Any]
Keys = dict[str, Json]
"""Digest -> name, models, rate, concurrent, expires, made, revoked."""

UNLIMITED = 2**31 - 1
"""Requests a minute, or at once, of a key without a limit."""
_FOREVER = 2**40
_LONGEST = 64 << 20
_PAYLOAD = 8000
"""Bytes of one addition to a map: HAProxy takes a command that fits in a buffer."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_MODEL = re.compile(r"[A-Za-z0-9_/][\w./:+@-]{0,255}|\*", re.ASCII)
_NUMBERS = ("rate", "concurrent", "expires", "made", "revoked")


class Torn(OSError):
    """Neither the records nor the copy of them can be read."""


def main(request: Json) -> Json:
    """Read the records, or merge others into them.

    Args:
        request: `do`: `read`, or `write` with `keys`, records to merge. `tree` and `socket` where they are not the
            distribution's.

    Returns:
        {keys, current, running, notes, used, models}: all records; whether map and HAProxy have what follows from
        them; whether HAProxy runs; what is worth telling; name -> what the key has used; the models of this edge.

    Raises:
        OSError: both copies of the records are torn, or HAProxy refused the map.
    """
    tree = os.path.join(str(request.get("tree") or edge_places.TREE), edge_places.OWN)
    runtime = str(request.get("socket") or edge_places.SOCKET)
    notes: list[str] = []
    if request["do"] == "write":
        safe_paths.make_directory(tree)
        with mutex.held(os.path.join(tree, edge_places.KEY_LOCK), "changes keys of the edge", 1):
            keys = merged([_read(tree, notes), valid(request["keys"])])
            _write(tree, keys)
            _load(tree, runtime, keys)
    else:
        keys = _read(tree, notes)
    text = map_text(keys)
    running = haproxy_socket.ask(runtime, "show info") is not None
    on_disk = whole_files.read_start(os.path.join(tree, edge_places.KEY_MAP), _LONGEST)
    loaded = not running or _loaded(tree, runtime) == {*text.splitlines()}
    return {
        "keys": keys,
        "current": on_disk == text and loaded,
        "running": running,
        "notes": notes,
        "used": _used(runtime) if running else {},
        "models": _models(tree),
    }


def merged(stores: Iterable[Keys]) -> Keys:
    """Return the union of records, the same in any order: revoked beats not revoked, and the earlier the later."""
    keys: Keys = {}
    for store in stores:
        for digest, record in store.items():
            keys[digest] = min(keys.get(digest, record), record, key=_rank)
    return dict(sorted(keys.items()))


def _rank(record: Json) -> tuple[bool, int, str]:
    return not record["revoked"], record["revoked"], _canonical(record)


def valid(keys: Any) -> Keys:
    """Return records whose every value has its form.

    Raises:
        ValueError: one that has not; a map of HAProxy could not carry it.
    """
    if not isinstance(keys, dict):
        raise ValueError("no records of keys")
    for digest, record in keys.items():
        if not (
            _DIGEST.fullmatch(digest)
            and isinstance(record, dict)
            and _NAME.fullmatch(str(record.get("name")))
            and isinstance(record.get("models"), list)
            and all(isinstance(model, str) and _MODEL.fullmatch(model) for model in record["models"])
            and all(type(record.get(name)) is int and 0 <= record[name] <= _FOREVER for name in _NUMBERS)
        ):
            raise ValueError(f"the record of key {digest[:12]} has not the form of one")
    return keys


def map_text(keys: Keys) -> str:
    """Return the map that HAProxy reads: digest -> name|rate|concurrent|expires, and digest:model where it may."""
    lines = []
    for digest, record in sorted(keys.items()):
        if record["revoked"]:
            continue
        limits = (record["rate"] or UNLIMITED, record["concurrent"] or UNLIMITED, record["expires"] or _FOREVER)
        lines += [f"{digest}:{model} 1" for model in sorted(record["models"])]
        lines.append(f"{digest} {record['name']}|" + "|".join(map(str, limits)))
    return "".join(f"{line}\n" for line in lines)


def _read(tree: str, notes: list[str]) -> Keys:
    path, before = os.path.join(tree, edge_places.KEYS), os.path.join(tree, edge_places.KEYS_BEFORE)
    if not os.path.lexists(path) and not os.path.lexists(before):
        return {}
    try:
        return _parsed(path)
    except (OSError, ValueError, RecursionError) as error:
        try:
            keys = _parsed(before)
        except (OSError, ValueError, RecursionError):
            raise Torn(
                f"{path} is torn ({error}), and so is {before}; HAProxy goes on with the keys that it has loaded;"
                " fix: run muster key from another edge's records, or remove both files to begin without keys"
            ) from None
        notes.append(f"{path} was torn or missing ({error}): the records of {before} count, and replace it")
        return keys


def _parsed(path: str) -> Keys:
    data = json.loads(safe_paths.read_bounded(path, _LONGEST))
    if not isinstance(data, dict) or data.get("sum") != whole_files.text_sha256(_canonical(data.get("keys"))):
        raise ValueError("its checksum is another")
    return valid(data["keys"])


def _canonical(keys: Any) -> str:
    return json.dumps(keys, sort_keys=True)


def _write(tree: str, keys: Keys) -> None:
    """Write records, then their copy, then the map of them: whichever is torn, the one before it is whole."""
    text = json.dumps({"sum": whole_files.text_sha256(_canonical(keys)), "keys": keys}, indent=1, sort_keys=True) + "\n"
    contents = {edge_places.KEYS: text, edge_places.KEYS_BEFORE: text, edge_places.KEY_MAP: map_text(keys)}
    for name, content in contents.items():
        path = os.path.join(tree, name)
        if whole_files.read_start(path, _LONGEST) != content:
            whole_files.write_whole(path, content.encode(), 0o600, 0, 0)


def _load(tree: str, runtime: str, keys: Keys) -> None:
    """Replace the map of a running HAProxy whole: no request sees a part of it.

    Raises:
        OSError: HAProxy did not take it.
    """
    path, lines = os.path.join(tree, edge_places.KEY_MAP), map_text(keys).splitlines()
    before = _loaded(tree, runtime)
    # None: HAProxy does not run, or still with the configuration of before the edge's. It reads the map when it starts.
    if before is None or before == {*lines}:
        return
    answer = haproxy_socket.ask(runtime, f"prepare map {path}") or ""
    found = re.search(r"New version created: (\d+)", answer)
    if found is None:
        raise OSError(f"HAProxy took no new version of {path}: {answer.strip()[:200]}")
    batch: list[str] = []
    for line in [*lines, None]:
        if batch and (line is None or sum(map(len, batch)) + len(batch) + len(line) > _PAYLOAD):
            wrong = (
                haproxy_socket.ask(runtime, f"add map @{found[1]} {path} <<\n" + "\n".join(batch) + "\n") or ""
            ).strip()
            if wrong:
                raise OSError(f"HAProxy took no keys: {wrong[:200]}")
            batch = []
        if line is not None:
            batch.append(line)
    haproxy_socket.ask(runtime, f"commit map @{found[1]} {path}")
    if _loaded(tree, runtime) != {*lines}:
        raise OSError(f"HAProxy has other keys than {path}; fix: systemctl reload haproxy")


def _loaded(tree: str, runtime: str) -> set[str] | None:
    """Return the lines of the running HAProxy's map; None where it has no such map, or none runs."""
    answer = haproxy_socket.ask(runtime, f"show map {os.path.join(tree, edge_places.KEY_MAP)}")
    if answer is None or answer.startswith("Unknown map"):
        return None
    return {line.split(" ", 1)[1] for line in answer.splitlines() if line.startswith("0x")}


def _used(runtime: str) -> dict[str, dict[str, int]]:
    """Return key's name -> requests taken and bytes, as HAProxy has counted them."""
    answer = haproxy_socket.ask(runtime, "show table clients") or ""
    used = {}
    for line in answer.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if _NAME.fullmatch(fields.get("key", "")):
            used[fields["key"]] = {
                "requests": int(fields.get("gpc0", 0)),
                "in_flight": int(fields.get("conn_cur", 0)),
                "bytes_in": int(fields.get("bytes_in_cnt", 0)),
                "bytes_out": int(fields.get("bytes_out_cnt", 0)),
            }
    return used


def _models(tree: str) -> list[str]:
    text = whole_files.read_start(os.path.join(tree, edge_places.MODELS), _LONGEST) or ""
    return [line.split(" ")[0] for line in text.splitlines() if line and not line.startswith("#")]


def keys_of(records: Mapping[str, Json], name: str) -> list[str]:
    """Return the digests of the keys of a name that are not revoked."""
    return [digest for digest, record in records.items() if record["name"] == name and not record["revoked"]]
