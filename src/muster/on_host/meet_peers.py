"""One host of a group that meets all at once: connections on a sample of the ports, full packets, no load.

A host program: standard library only, Python 3.9 or newer. Every host listens on the meeting's port and on the sample:
the group's own ports, and ports that the kernel picks, as it will for the engine and NCCL. A caller learns the sample
over the meeting's port and tries all of it. Connections that do not send the token are a stranger's and are closed.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from typing import Any

from muster.on_host.measure_pair import connect, family, ping, receive

Json = dict[str, Any]

EPHEMERAL = 3
"""How many ports the kernel picks."""
MOST = 16
"""Ports of a sample at most, in both directions: a peer may be anything."""
TRY_SECONDS = 3.0
LENGTH = 6


class Sample:
    """Listeners on the sample's ports, which answer whoever sends the token with the token."""

    def __init__(self, address: str, low: list[int], token: bytes) -> None:
        self._token = token
        self.ports: list[list[Any]] = []
        """[port, `low` or `ephemeral`] of each."""
        self._sockets: list[socket.socket] = []
        for port in [*low[: MOST - EPHEMERAL], *([0] * EPHEMERAL)]:
            listener = socket.socket(family(address), socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((address, port))
                listener.listen(64)
            except OSError:  # In use: host.ports reports that, and peers cannot try it.
                listener.close()
                continue
            self._sockets.append(listener)
            self.ports.append([listener.getsockname()[1], "low" if port else "ephemeral"])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while self._sockets:
            try:
                ready = select.select(self._sockets, [], [], 0.2)[0]
            except (OSError, ValueError):
                return  # Closed.
            for listener in ready:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    continue
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(TRY_SECONDS)
                if receive(connection, len(self._token)) == self._token:
                    connection.sendall(self._token)
            except OSError:
                pass

    def close(self) -> None:
        sockets, self._sockets = self._sockets, []
        for listener in sockets:
            listener.close()


def sampled(connection: socket.socket) -> list[tuple[int, str]]:
    """Return the ports that a peer listens on, as it tells over the meeting's port."""
    ports = json.loads(receive(connection, min(int(receive(connection, LENGTH)), 4096)))
    return [
        (int(port), "low" if kind == "low" else "ephemeral") for port, kind in ports[:MOST] if 0 < int(port) < 65536
    ]


def try_port(request: Json, port: int) -> str:
    """Return why a port of the peer does not answer, or nothing when it does."""
    token = request["token"].encode()
    try:
        with socket.create_connection(
            (request["peer"], port), timeout=TRY_SECONDS, source_address=(request["address"], 0)
        ) as connection:
            connection.sendall(token)
            return "" if receive(connection, len(token)) == token else "another program answered"
    except OSError as error:
        return str(error) or type(error).__name__


def try_all(request: Json, ports: list[tuple[int, str]]) -> list[list[Any]]:
    """Return [port, kind, why not (empty when it answers)] of a peer's ports, all tried at once."""
    results: list[list[Any]] = []

    def one(port: int, kind: str) -> None:
        results.append([port, kind, try_port(request, port)])

    threads = [threading.Thread(target=one, args=entry, daemon=True) for entry in ports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * TRY_SECONDS)
    return sorted(results)


def visit(request: Json) -> Json:
    """Meet one peer: its ports, and a full packet to it."""
    token, answer = request["token"].encode(), Json(packet=request["packet"])
    try:
        # Open until all is tried: it tells the peer to keep its listeners.
        with connect(request) as connection:
            connection.settimeout(request["wait"] + 2 * TRY_SECONDS)
            connection.sendall(token)
            receive(connection, len(token))
            answer["ports"] = try_all(request, sampled(connection))
        answer["ping"] = ping(request) if request["packet"] else None
    except (OSError, ValueError, TypeError) as error:
        answer["error"] = str(error) or type(error).__name__
    return answer


def main(request: Json) -> Json:
    """Meet every peer: take a call from each, and call each. Answers {peers: {name: {ports, packet, ping or error}}}.

    Args:
        request: `address` (own, on the fabric), `port` (of every host), `token`, `wait` (seconds for peers to come),
            `low` (the group's own ports here), `peers` {name: {address, packet}}.
    """
    try:
        return _meet(request)
    except OSError as error:
        return {"error": str(error) or type(error).__name__}


def _meet(request: Json) -> Json:
    token, peers, answers = request["token"].encode(), request["peers"], {}
    missing = {peer["address"] for peer in peers.values()}
    deadline = time.monotonic() + request["wait"] + 4.0

    def call(name: str) -> None:
        answers[name] = visit({**request, "peer": peers[name]["address"], "packet": peers[name]["packet"]})

    def take(connection: socket.socket, caller: str, sample: bytes) -> None:
        with connection:
            try:
                connection.settimeout(2.0)
                if receive(connection, len(token)) != token:
                    return
                connection.sendall(token + b"%*d" % (LENGTH, len(sample)) + sample)
                connection.settimeout(max(0.1, deadline + 4.0 - time.monotonic()))
                connection.recv(1)  # Its end: the caller has tried everything.
            except OSError:
                pass
            missing.discard(caller)

    visits = [threading.Thread(target=call, args=(name,), daemon=True) for name in peers]
    with socket.socket(family(request["address"]), socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((request["address"], request["port"]))
        listener.listen(len(peers) + 4)
        sample = Sample(request["address"], [port for port in request.get("low", ()) if port != request["port"]], token)
        told = json.dumps(sample.ports).encode()
        for thread in visits:
            thread.start()
        while missing and time.monotonic() < deadline:
            # Short: a caller that is done takes its address from the missing ones in its own thread.
            listener.settimeout(0.2)
            try:
                connection, (caller, *_) = listener.accept()
            except OSError:
                continue
            threading.Thread(target=take, args=(connection, caller, told), daemon=True).start()
        for thread in visits:
            thread.join(max(0.1, deadline + 4.0 - time.monotonic()))
        sample.close()
    return {"peers": {name: answers.get(name, {"error": "no answer in time"}) for name in peers}}
