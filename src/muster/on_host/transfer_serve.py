"""The serving side: answer the requests of peers and tell them which chunks this host has gained."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from muster.on_host import transfer_wire as wire
from muster.on_host.transfer_files import Files
from muster.on_host.transfer_pieces import HERE, PieceMap

GAINS_AT_ONCE, ANNOUNCED_AT_ONCE = 100_000, 8
"""Chunks and files that one answer tells of at most."""
_WAIT = 1.0
_BATCH = 0.1
"""Seconds for which updates are collected before a waiting peer gets them: one message per chunk to every peer would
cost more than the chunk itself."""


def shown(text: Any) -> str:
    """Return another host's words as they may be printed: on one line, cut, without control characters."""
    return "".join(each if each.isprintable() else " " for each in str(text)[:1000])


class Server:
    """What one host serves in a run.

    Args:
        pieces: of the transfer.
        files: of the revision.
        me: this host's name; `seed` is the host that knows the digest of every chunk.
        keys: peer -> pair key.
        addresses: of the peers; other callers are refused.
        reported_bad: called with a file when a peer reports that we sent it bad data.
        over: set when the run has ended.
    """

    def __init__(
        self,
        pieces: PieceMap,
        files: Files,
        me: str,
        seed: str,
        keys: dict[str, bytes],
        addresses: set[str],
        reported_bad: Callable[[int], None],
        over: threading.Event,
    ) -> None:
        self.pieces, self.files, self.me, self.seed = pieces, files, me, seed
        self.keys, self.addresses, self.reported_bad, self.over = keys, addresses, reported_bad, over

    def accept(self, listening: socket.socket) -> None:
        """Serve the peers that call, one thread each, until the socket is shut."""
        while not self.over.is_set():
            try:
                sock, address = listening.accept()
            except OSError:
                return
            if address[0] in self.addresses:
                wire.thread(self._serve, sock)
            else:
                sock.close()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            wire.tune(sock)
            name, line = wire.answer(sock, self.me, self.keys)
            while not self.over.is_set():
                request, _ = line.receive()
                self._note_caller(name, request)
                if self._reply(line, request):
                    self.pieces.note_end_heard(name)

    def _note_caller(self, name: str, request: dict[str, Any]) -> None:
        with self.pieces.changed:
            peer = self.pieces.peers[name]
            peer.last_heard = time.monotonic()
            peer.count = max(peer.count, int(request.get("count", 0)))
            if request.get("done") and not peer.done:
                peer.done = True
                self.pieces.changed.notify_all()
        if request.get("error") and name == self.seed:
            self.pieces.fail(f"{name}, the seed: {shown(request['error'])}")
        if "bad" in request:
            self.reported_bad(self.pieces.file_of[int(request["bad"])])

    def _reply(self, line: wire.Wire, request: dict[str, Any]) -> bool:
        """Answer one request; return whether the answer said that this host is complete."""
        pieces = self.pieces
        reply: dict[str, Any] = {}
        block = b""
        chunk = request.get("get")
        if request.get("wait"):
            self._await_update(int(request["cursor"]), int(request["files"]))
        with pieces.changed:
            if request.get("fresh"):
                chunk = pieces.deal(int(request["ready"]))
            if "cursor" in request:
                cursor, files = int(request["cursor"]), int(request["files"])
                block = pieces.log[cursor : cursor + GAINS_AT_ONCE].tobytes()
                reply["cursor"] = cursor + len(block) // 4
                if self.me == self.seed:
                    reply["files"] = [
                        self._announcement(at) for at in pieces.file_log[files : files + ANNOUNCED_AT_ONCE]
                    ]
            reply |= {"count": len(pieces.log), "done": pieces.done, "error": pieces.error}
            if chunk is not None and not (0 <= int(chunk) < pieces.chunks and pieces.state[int(chunk)] == HERE):
                chunk = None
        if chunk is None:
            line.send(reply, block)
            return bool(reply["done"])
        at, offset, size = pieces.place(int(chunk))
        handle = self.files.open(at)
        line.send({**reply, "data": [int(chunk), size]}, block)
        while size:
            sent = os.sendfile(line.sock.fileno(), handle, offset, size)
            if not sent:
                raise wire.BrokenConnection("the file ended")
            offset, size = offset + sent, size - sent
        return bool(reply["done"])

    def _await_update(self, cursor: int, files: int) -> None:
        """Wait until there is an update for a peer, and a moment longer for more of it."""
        pieces, until = self.pieces, time.monotonic() + _WAIT
        while time.monotonic() < until and not (pieces.done or pieces.error or self.over.is_set()):
            self.over.wait(_BATCH)
            if len(pieces.log) > cursor or len(pieces.file_log) > files:
                return

    def _announcement(self, at: int) -> list[Any]:
        packed = bytes.fromhex("".join(self.pieces.hashes[at]))
        return [at, self.pieces.files[at]["sha256"], base64.b64encode(packed).decode()]
