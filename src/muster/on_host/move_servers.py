"""Bring servers of the edge to the addresses that their group answers at, in HAProxy's memory and in its file.

Requests follow at once, without a reload: that would put back in what is held out at this moment. The file follows,
so that a reload or a restart goes on from where the memory is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from muster.on_host import edge_places, haproxy_socket, mutex, safe_paths, whole_files

Json = dict[str, Any]
Place = tuple[str, int, str, int]
"""Where an engine answers, and where its guard answers /ready: address and port, address and port."""

_LIMIT = 64 << 20
_SECONDS = 30.0
"""For another session that moves servers of another group."""
_SECTION = re.compile(r"(\w\S*)(?: (\S+))?")
_SERVER = re.compile(r"(    server (\S+) )(\S+):(\d+) check addr (\S+) port (\d+)( .*)?")


def main(request: Json) -> Json:
    """Say which servers of some groups are elsewhere, or move them.

    Args:
        request: `do`: `read` or `move`; `servers` {backend/server: {address, port, ready_address, ready_port}}: all
            of each group. `tree` and `socket` where they are not the distribution's.

    Returns:
        {elsewhere: {backend/server: text}}: servers of these groups that were not, in memory and file, where they are
        to be, by their name at this edge, and where HAProxy had them.

    Raises:
        OSError: HAProxy did not take an address, or its file could not be written.
    """
    tree = str(request.get("tree") or edge_places.TREE)
    runtime = str(request.get("socket") or edge_places.SOCKET)
    planned = {name: _place(given) for name, given in request["servers"].items()}
    if request["do"] == "read":
        return {"elsewhere": _elsewhere(tree, runtime, planned)}
    safe_paths.make_directory(os.path.join(tree, edge_places.OWN))
    with mutex.attempted(os.path.join(tree, edge_places.OWN, edge_places.MOVE_LOCK), _SECONDS):
        elsewhere = _elsewhere(tree, runtime, planned)
        _move_in_memory(runtime, planned)
        _move_in_file(tree, planned)
        left = _elsewhere(tree, runtime, planned)
    if left:
        raise OSError(
            "HAProxy still has "
            + "; ".join(f"{name} at {text}" for name, text in left.items())
            + "; fix: systemctl reload haproxy, which reads its file again"
        )
    return {"elsewhere": elsewhere}


def standing_for(planned: Iterable[str], there: Collection[str]) -> dict[str, str]:
    """Return server at this edge -> the planned one whose requests it gets.

    A server is called after its group and its host. Where a group answers on another host than this edge has known so
    far, the server of the former host stands for the new one, until the edge's files name that.

    Args:
        planned: backend/server, all of each group.
        there: backend/server, all of this edge.
    """
    wanted: dict[str, list[str]] = {}
    for name in planned:
        wanted.setdefault(whose(name), []).append(name)
    stands: dict[str, str] = {}
    for group, names in wanted.items():
        own = [name for name in there if whose(name) == group]
        others = [name for name in own if name not in names]
        vacant = [name for name in names if name not in own] or names
        stands |= {name: name for name in own if name in names}
        stands |= {name: vacant[index % len(vacant)] for index, name in enumerate(others)}
    return stands


def moved(text: str, planned: Mapping[str, Place]) -> str:
    """Return haproxy.cfg with the servers of some groups at their places.

    Args:
        text: as muster renders it.
        planned: backend/server -> its place, all of each group.
    """
    there = _in_file(text)
    moving = {name: planned[as_] for name, as_ in standing_for(planned, there).items() if there[name] != planned[as_]}
    lines, backend = [], ""
    for line in text.split("\n"):
        backend = _backend(line, backend)
        found = _SERVER.fullmatch(line)
        if found and (name := f"{backend}/{found[2]}") in moving:
            address, port, ready_address, ready_port = moving[name]
            line = f"{found[1]}{address}:{port} check addr {ready_address} port {ready_port}{found[7] or ''}"
        lines.append(line)
    return "\n".join(lines)


def whose(server: str) -> str:
    """Return which group of which backend a server is of, by its name: backend/group_host."""
    return server.rsplit("_", 1)[0]


def _place(given: Json) -> Place:
    """Return a place; an address is one, a port a number, whatever the control machine sends."""
    addresses = [str(ip_address(given[name])) for name in ("address", "ready_address")]
    return addresses[0], int(given["port"]), addresses[1], int(given["ready_port"])


def _as_shown(address: str, port: str, ready_address: str, ready_port: str) -> Place:
    """Return a place as HAProxy has it; no place of a plan's where that is none."""
    try:
        return _place({"address": address, "port": port, "ready_address": ready_address, "ready_port": ready_port})
    except ValueError:
        return address, 0, ready_address, 0


def _elsewhere(tree: str, runtime: str, planned: Mapping[str, Place]) -> dict[str, str]:
    memory, file = _in_memory(runtime), _in_file(_read(tree))
    found: dict[str, str] = {}
    for places in (file, memory):
        for name, wanted in standing_for(planned, places).items():
            if places[name] != planned[wanted]:
                found[name] = _in_words(places[name])
    return found


def _in_words(place: Place) -> str:
    address, port, ready_address, ready_port = place
    return f"{address}:{port}, asked for /ready at {ready_address}:{ready_port}"


def _move_in_memory(runtime: str, planned: Mapping[str, Place]) -> None:
    memory = _in_memory(runtime)
    for name, wanted in standing_for(planned, memory).items():
        if memory[name] != planned[wanted]:
            address, port, ready_address, ready_port = planned[wanted]
            haproxy_socket.ask(runtime, f"set server {name} addr {address} port {port}")
            haproxy_socket.ask(runtime, f"set server {name} check-addr {ready_address} port {ready_port}")


def _in_memory(runtime: str) -> dict[str, Place]:
    """Return backend/server -> where the running HAProxy has it; nothing where none runs."""
    return {
        name: _as_shown(row["srv_addr"], row["srv_port"], row["srv_check_addr"], row["srv_check_port"])
        for name, row in haproxy_socket.server_states(runtime).items()
    }


def _read(tree: str) -> str:
    try:
        return safe_paths.read_bounded(os.path.join(tree, edge_places.CONFIGURATION), _LIMIT).decode()
    except FileNotFoundError:
        return ""


def _in_file(text: str) -> dict[str, Place]:
    places: dict[str, Place] = {}
    backend = ""
    for line in text.split("\n"):
        backend = _backend(line, backend)
        found = _SERVER.fullmatch(line)
        if found:
            places[f"{backend}/{found[2]}"] = _as_shown(found[3], found[4], found[5], found[6])
    return places


def _backend(line: str, before: str) -> str:
    """Return the section that a line of haproxy.cfg is in, by the one before it."""
    found = _SECTION.match(line)
    return (found[2] or "") if found else before


def _move_in_file(tree: str, planned: Mapping[str, Place]) -> None:
    path, before = os.path.join(tree, edge_places.CONFIGURATION), _read(tree)
    after = moved(before, planned)
    if after != before:
        is_now = os.stat(path)
        whole_files.write_whole(path, after.encode(), is_now.st_mode & 0o7777, is_now.st_uid, is_now.st_gid)
