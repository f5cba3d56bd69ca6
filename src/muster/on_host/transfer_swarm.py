"""The hosts of one run give each other chunks: every host asks every other for what it lacks, the seed deals out first.

The seed's link is the narrow place. So it deals every chunk once, each to whoever asks next, and the receivers get the
rest from each other; only what no receiver has is asked of the seed a second time. A slow receiver is dealt less, a
dead one nothing; neither stands between the others.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

from muster.on_host import transfer_store as store
from muster.on_host import transfer_wire as wire
from muster.on_host.transfer_files import Files
from muster.on_host.transfer_pieces import HERE, Board
from muster.on_host.transfer_serve import Giver

_FIRST_RETRY, _LAST_RETRY = 0.1, 2.0
_WAIT = 1.0
_WRONG_LIMIT = 3
"""Chunks with wrong bytes after which a peer is asked for nothing more."""


class Swarm:
    """One host's part in a run.

    Args:
        board: what is where.
        files: of the revision.
        me: this host's name; `seed` is the name of the one that knows what every chunk must be.
        peers: name -> {address, port, key: {text (hex)}}.
        listen: (address, port) of this host.
        say: prints a line of progress.
        whole: called, in any thread, with a file all of whose chunks are here.
        known: called with a file when the seed has told what its chunks must be.
        suspect: called with a file of which a peer says that it got wrong bytes of it from here.
        patience: seconds after which a silent peer counts as gone.
    """

    def __init__(
        self,
        board: Board,
        files: Files,
        me: str,
        seed: str,
        peers: dict[str, dict[str, Any]],
        listen: tuple[str, int],
        say: Callable[[str], None],
        whole: Callable[[int], None],
        known: Callable[[int], None],
        suspect: Callable[[int], None],
        patience: float = 60.0,
    ) -> None:
        self.board, self.files, self.me, self.seed = board, files, me, seed
        self.peers, self.listen, self.say, self.patience = peers, listen, say, patience
        self.whole, self.known = whole, known
        self.keys = {name: bytes.fromhex(peer["key"]["text"]) for name, peer in peers.items()}
        self.accused: dict[str, int] = {}
        self.over = threading.Event()
        addresses = {peer["address"] for peer in peers.values()}
        self.giver = Giver(board, files, me, seed, self.keys, addresses, suspect, self.over)
        self._socket = socket.socket(socket.AF_INET6 if ":" in listen[0] else socket.AF_INET)

    def start(self) -> None:
        """Listen on the fabric address and call every peer.

        Raises:
            OSError: the address is not this host's, or the port is taken.
        """
        if not self.peers:
            return
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(self.listen)
        except OSError as error:
            raise OSError(f"cannot listen on {self.listen[0]} port {self.listen[1]}: {error.strerror}") from None
        self._socket.listen(128)
        wire.thread(self.giver.accept, self._socket)
        streams = max(1, min(8, 8 // max(1, len(self.peers))))
        for name in self.peers:
            for number in range(streams):
                wire.thread(self._ask, name, number == 0)

    def stop(self) -> None:
        """Take back the port and every connection."""
        self.over.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def gone(self, name: str) -> bool:
        """Whether a peer has been silent for too long."""
        return self.board.peers[name].silent > self.patience

    def needed(self) -> list[str]:
        """Return the peers that still want something of this host, or do not know yet that it wants nothing."""
        peers = self.board.peers
        return [name for name, peer in peers.items() if not (peer.done and peer.told) and not self.gone(name)]

    def _ask(self, name: str, leads: bool) -> None:
        """Hold a connection to one peer for as long as the run lasts; only the leading one hears news."""
        peer, retry = self.board.peers[name], _FIRST_RETRY
        while not self.over.is_set() and not self.board.error and peer.wrong < _WRONG_LIMIT:
            try:
                with socket.create_connection(
                    (self.peers[name]["address"], self.peers[name]["port"]), 5.0, (self.listen[0], 0)
                ) as sock:
                    wire.tune(sock)
                    line = wire.call(sock, self.me, name, self.keys[name])
                    if leads:
                        self.board.forget(name)
                    self._talk(line, name, leads)
                    return
            except (OSError, ValueError, KeyError, IndexError):
                self.over.wait(retry)
                retry = min(2 * retry, _LAST_RETRY)

    def _talk(self, line: wire.Wire, name: str, leads: bool) -> None:
        board, peer = self.board, self.board.peers[name]
        buffer = memoryview(bytearray(self.board.chunk))
        while peer.wrong < _WRONG_LIMIT:
            words = self._question(name, leads)
            if words is None:
                return
            chunk = words.get("get")
            try:
                line.send(words)
                reply, block = line.hear()
                self._learn(name, leads, reply, block)
                if words.get("done"):
                    self.board.tell_end(name)
                if "data" not in reply:
                    if chunk is not None:
                        board.lost(chunk)
                    if words.get("fresh"):
                        peer.dry_at = words["ready"]
                    if (words.get("done") and peer.done) or words.get("error"):
                        return
                    continue
                chunk = int(reply["data"][0])
                at, offset, size = board.place(chunk)
                wire.fill(line.sock, buffer[:size])
            except BaseException:
                if chunk is not None:
                    board.lost(chunk)
                raise
            if hashlib.sha256(buffer[:size]).hexdigest() != board.hash_of(chunk):
                self._accuse(name, chunk)
                # At once: another thread may have counted the last that is asked of it.
                line.send({"bad": chunk})
                self._learn(name, False, *line.hear())
                continue
            if board.state[chunk] != HERE:
                self.files.write(at, buffer[:size], offset)
                if board.got(chunk, name):
                    self.whole(at)

    def _question(self, name: str, leads: bool) -> dict[str, Any] | None:
        """Return what to ask a peer next; None when nothing will be asked of it any more."""
        board, peer = self.board, self.board.peers[name]
        with board.changed:
            while True:
                words: dict[str, Any] = {"count": len(board.log)}
                if board.error:
                    words["error"] = board.error
                if leads:
                    words |= {"cursor": peer.cursor, "files": peer.files_known}
                if board.done or board.error or self.over.is_set():
                    # News is heard on: a seed must not deal what a peer has had from an earlier run.
                    return {**words, "done": board.done, "wait": board.done} if leads else None
                ready = board.ready
                if name == self.seed and ready and peer.dry_at != ready:
                    return {**words, "fresh": True, "ready": ready}
                chunk = board.pick(name)
                if chunk is not None:
                    return {**words, "get": chunk}
                if leads:
                    return {**words, "wait": True}
                board.changed.wait(_WAIT)

    def _learn(self, name: str, leads: bool, reply: dict[str, Any], block: bytes) -> None:
        peer = self.board.peers[name]
        with self.board.changed:
            peer.seen = time.monotonic()
            peer.done = peer.done or bool(reply.get("done"))
        if reply.get("error") and name == self.seed:
            self.board.fail(f"{name}, the seed: {reply['error']}")
        if not leads:
            return
        gained = array("I")
        gained.frombytes(block)
        self.board.hear(name, gained, int(reply["cursor"]), int(reply["count"]))
        for at, sha256, packed in reply.get("files", ()):
            peer.files_known += 1
            if self.board.know(int(at), sha256, store.split(base64.b64decode(packed))):
                self.known(int(at))

    def _accuse(self, name: str, chunk: int) -> None:
        """Throw a chunk away and say who sent it."""
        self.board.lost(chunk)
        peer = self.board.peers[name]
        wrong = peer.wrong = self.accused[name] = peer.wrong + 1  # another thread may count on before it is judged
        at, offset, _ = self.board.place(chunk)
        path = self.board.files[at]["path"]
        self.say(f"{name} served wrong bytes of {path} at offset {offset}; they were thrown away")
        if wrong == _WRONG_LIMIT:
            self.say(f"{name} is asked for nothing more in this run")
