"""Giving: a host answers what its peers ask of a transfer, and tells them what it has gained."""

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
from muster.on_host.transfer_pieces import HERE, Board

_WAIT = 1.0
_BATCH = 0.1
"""Seconds for which news is gathered before a peer that waits for it is told: every chunk by itself, told to every
peer, costs more than the chunk."""


class Giver:
    """One host's answers in a run.

    Args:
        board: what is where.
        files: of the revision.
        me: this host's name; `seed` is the name of the one that knows what every chunk must be.
        keys: peer -> pair key.
        addresses: of the peers; nobody else is answered.
        suspect: called with a file of which a peer says that it got wrong bytes of it from here.
        over: set when the run has ended.
    """

    def __init__(
        self,
        board: Board,
        files: Files,
        me: str,
        seed: str,
        keys: dict[str, bytes],
        addresses: set[str],
        suspect: Callable[[int], None],
        over: threading.Event,
    ) -> None:
        self.board, self.files, self.me, self.seed = board, files, me, seed
        self.keys, self.addresses, self.suspect, self.over = keys, addresses, suspect, over

    def accept(self, listening: socket.socket) -> None:
        """Serve whoever of the inventory calls, until the socket is shut; in a thread of its own."""
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
        with sock, contextlib.suppress(OSError, ValueError, KeyError):
            wire.tune(sock)
            name, line = wire.answer(sock, self.me, self.keys)
            while not self.over.is_set():
                words, _ = line.hear()
                self._met(name, words)
                if self._reply(line, words):
                    self.board.tell_end(name)

    def _met(self, name: str, words: dict[str, Any]) -> None:
        with self.board.changed:
            peer = self.board.peers[name]
            peer.seen = time.monotonic()
            peer.count = max(peer.count, int(words.get("count", 0)))
            if words.get("done") and not peer.done:
                peer.done = True
                self.board.changed.notify_all()
        if words.get("error") and name == self.seed:
            self.board.fail(f"{name}, the seed: {words['error']}")
        if "bad" in words:
            self.suspect(self.board.file_of[int(words["bad"])])

    def _reply(self, line: wire.Wire, words: dict[str, Any]) -> bool:
        """Answer one question; return whether the answer said that this host is complete."""
        board = self.board
        reply: dict[str, Any] = {}
        block = b""
        chunk = words.get("get")
        if words.get("wait"):
            self._await_news(int(words["cursor"]), int(words["files"]))
        with board.changed:
            if words.get("fresh"):
                chunk = board.give_fresh(int(words["ready"]))
            if "cursor" in words:
                cursor, files = int(words["cursor"]), int(words["files"])
                block = board.log[cursor : cursor + 100_000].tobytes()
                reply["cursor"] = cursor + len(block) // 4
                if self.me == self.seed:
                    reply["files"] = [self._told(at) for at in board.file_log[files : files + 8]]
            reply |= {"count": len(board.log), "done": board.done, "error": board.error}
            if chunk is not None and not (0 <= int(chunk) < board.chunks and board.state[int(chunk)] == HERE):
                chunk = None
        if chunk is None:
            line.send(reply, block)
            return bool(reply["done"])
        at, offset, size = board.place(int(chunk))
        handle = self.files.open(at)
        line.send({**reply, "data": [int(chunk), size]}, block)
        while size:
            sent = os.sendfile(line.sock.fileno(), handle, offset, size)
            if not sent:
                raise wire.Broken("the file ended")
            offset, size = offset + sent, size - sent
        return bool(reply["done"])

    def _await_news(self, cursor: int, files: int) -> None:
        """Wait until there is something to tell a peer, and a little for more of it."""
        board, until = self.board, time.monotonic() + _WAIT
        while time.monotonic() < until and not (board.done or board.error or self.over.is_set()):
            self.over.wait(_BATCH)
            if len(board.log) > cursor or len(board.file_log) > files:
                return

    def _told(self, at: int) -> list[Any]:
        packed = bytes.fromhex("".join(self.board.hashes[at]))
        return [at, self.board.files[at]["sha256"], base64.b64encode(packed).decode()]
