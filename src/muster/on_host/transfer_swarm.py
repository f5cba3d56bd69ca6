"""The swarm: every host of a run requests what it lacks from every other; the seed deals out first.

The seed's link is the bottleneck. It deals every chunk once, to whichever host asks next, and the receivers get the
rest from each other; a chunk is requested from the seed a second time only if no receiver has it. A slow receiver is
dealt less, a dead one nothing; neither holds up the others.
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

from muster.on_host import transfer_chunks
from muster.on_host import transfer_wire as wire
from muster.on_host.transfer_files import Files
from muster.on_host.transfer_pieces import HERE, PieceMap
from muster.on_host.transfer_serve import ANNOUNCED_AT_ONCE, GAINS_AT_ONCE, Server, shown

_FIRST_RETRY, _LAST_RETRY = 0.1, 2.0
_WAIT = 1.0
BAD_LIMIT = 3
"""Bad chunks after which nothing more is requested from a peer."""


def distrust(host: str) -> str:
    """Return what to do about a host whose files are not the pinned ones."""
    return f"fix: find out who changed the files of {host}; leave it out of the inventory, or remove them there"


class Swarm:
    """One host's part in a run.

    Args:
        pieces: of the transfer.
        files: of the revision.
        me: this host's name; `seed` is the host that knows the digest of every chunk.
        peers: name -> {address, port, key: {text (hex)}}.
        listen: (address, port) of this host.
        say: prints a line of progress.
        on_complete: called, in any thread, with a file when all its chunks are here.
        on_hashes: called with a file when the seed has announced the digests of its chunks.
        reported_bad: called with a file when a peer reports that we sent it bad data.
        patience: seconds after which a silent peer counts as gone.
    """

    def __init__(
        self,
        pieces: PieceMap,
        files: Files,
        me: str,
        seed: str,
        peers: dict[str, dict[str, Any]],
        listen: tuple[str, int],
        say: Callable[[str], None],
        on_complete: Callable[[int], None],
        on_hashes: Callable[[int], None],
        reported_bad: Callable[[int], None],
        patience: float = 60.0,
    ) -> None:
        self.pieces, self.files, self.me, self.seed = pieces, files, me, seed
        self.peers, self.listen, self.say, self.patience = peers, listen, say, patience
        self.on_complete, self.on_hashes = on_complete, on_hashes
        self.keys = {name: bytes.fromhex(peer["key"]["text"]) for name, peer in peers.items()}
        # A block of gains, and the announcements of the largest files: base64 of 32 bytes per chunk.
        largest = sorted(pieces.counts)[-ANNOUNCED_AT_ONCE:]
        self._frame_limit = wire.FRAME_LIMIT + 4 * GAINS_AT_ONCE + sum(48 * count + 4096 for count in largest)
        self.over = threading.Event()
        addresses = {peer["address"] for peer in peers.values()}
        self.server = Server(pieces, files, me, seed, self.keys, addresses, reported_bad, self.over)
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
        wire.thread(self.server.accept, self._socket)
        streams = max(1, min(8, 8 // max(1, len(self.peers))))
        for name in self.peers:
            for number in range(streams):
                wire.thread(self._request_from, name, number == 0)

    def stop(self) -> None:
        """Close the port and every connection."""
        self.over.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def gone(self, name: str) -> bool:
        """Whether a peer has been silent for too long."""
        return self.pieces.peers[name].silent > self.patience

    def needed(self) -> list[str]:
        """Return the peers that still need this host, or do not know yet that it needs nothing."""
        peers = self.pieces.peers
        return [name for name, peer in peers.items() if not (peer.done and peer.heard_end) and not self.gone(name)]

    def _request_from(self, name: str, leads: bool) -> None:
        """Keep a connection to one peer for the whole run; only the leading one carries updates."""
        peer, retry = self.pieces.peers[name], _FIRST_RETRY
        while not self.over.is_set() and not self.pieces.error and peer.bad_chunks < BAD_LIMIT:
            try:
                with socket.create_connection(
                    (self.peers[name]["address"], self.peers[name]["port"]), 5.0, (self.listen[0], 0)
                ) as sock:
                    wire.tune(sock)
                    line = wire.call(sock, self.me, name, self.keys[name])
                    line.limit = self._frame_limit
                    if leads:
                        self.pieces.forget_peer(name)
                    self._converse(line, name, leads)
                    return
            except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
                self.over.wait(retry)
                retry = min(2 * retry, _LAST_RETRY)

    def _converse(self, line: wire.Wire, name: str, leads: bool) -> None:
        pieces, peer = self.pieces, self.pieces.peers[name]
        buffer = memoryview(bytearray(self.pieces.chunk))
        while peer.bad_chunks < BAD_LIMIT:
            request = self._next_request(name, leads)
            if request is None:
                return
            chunk = request.get("get")
            try:
                line.send(request)
                reply, block = line.receive()
                self._note_reply(name, leads, reply, block)
                if request.get("done"):
                    self.pieces.note_end_heard(name)
                if "data" not in reply:
                    if chunk is not None:
                        pieces.not_coming(chunk)
                    if request.get("fresh"):
                        peer.dry_at = request["ready"]
                    if (request.get("done") and peer.done) or request.get("error"):
                        return
                    continue
                chunk = self._served(request, int(reply["data"][0]))
                at, offset, size = pieces.place(chunk)
                wire.fill(line.sock, buffer[:size])
            except BaseException:
                if chunk is not None:
                    pieces.not_coming(chunk)
                raise
            if hashlib.sha256(buffer[:size]).hexdigest() != pieces.hash_of(chunk):
                self._reject(name, chunk)
                # At once: another thread may already have reached the limit and hang up.
                line.send({"bad": chunk})
                self._note_reply(name, False, *line.receive())
                continue
            if pieces.state[chunk] != HERE:
                self.files.write(at, buffer[:size], offset)
                if pieces.received(chunk, name):
                    self.on_complete(at)

    def _served(self, request: dict[str, Any], chunk: int) -> int:
        """Return the chunk that follows an answer.

        Raises:
            ValueError: it was not requested, or is of a file whose digests are unknown.
        """
        expected = request.get("get")
        fits = chunk == expected if expected is not None else bool(request.get("fresh"))
        if not fits or not 0 <= chunk < self.pieces.chunks or self.pieces.file_of[chunk] not in self.pieces.opened:
            raise ValueError(f"chunk {chunk} was not requested")
        return chunk

    def _next_request(self, name: str, leads: bool) -> dict[str, Any] | None:
        """Return the next request to a peer; None when there will be no more."""
        pieces, peer = self.pieces, self.pieces.peers[name]
        with pieces.changed:
            while True:
                request: dict[str, Any] = {"count": len(pieces.log)}
                if pieces.error:
                    request["error"] = pieces.error
                if leads:
                    request |= {"cursor": peer.cursor, "files": peer.files_known}
                if pieces.done or pieces.error or self.over.is_set():
                    # Updates still flow: a seed must not deal what a peer already had from an earlier run.
                    return {**request, "done": pieces.done, "wait": pieces.done} if leads else None
                ready = pieces.ready if name == self.seed else 0
                if ready and peer.dry_at != ready:
                    return {**request, "fresh": True, "ready": ready}
                chunk = pieces.choose(name)
                if chunk is not None:
                    return {**request, "get": chunk}
                if leads:
                    return {**request, "wait": True}
                pieces.changed.wait(_WAIT)

    def _note_reply(self, name: str, leads: bool, reply: dict[str, Any], block: bytes) -> None:
        peer = self.pieces.peers[name]
        with self.pieces.changed:
            peer.last_heard = time.monotonic()
            peer.done = peer.done or bool(reply.get("done"))
        if reply.get("error") and name == self.seed:
            self.pieces.fail(f"{name}, the seed: {shown(reply['error'])}")
        if not leads:
            return
        gained = array("I")
        gained.frombytes(block)
        self.pieces.learn_gains(name, gained, int(reply["cursor"]), int(reply["count"]))
        if name == self.seed:
            for at, sha256, packed in reply.get("files", ()):
                peer.files_known += 1
                self._take_announcement(int(at), sha256, base64.b64decode(packed))

    def _take_announcement(self, at: int, sha256: str, packed: bytes) -> None:
        """Take the seed's digests of a file's chunks, if they are of the file that is pinned.

        Raises:
            ValueError: they are not; the transfer has ended on this host.
        """
        hashes, entry = (
            transfer_chunks.split(packed),
            self.pieces.files[at] if 0 <= at < len(self.pieces.files) else None,
        )
        fault = ""
        if entry is None:
            fault = f"announces a file number {at} that is not pinned"
        elif sha256 != entry["sha256"]:
            fault = f"announces SHA-256 {str(sha256)[:64]!r} for {entry['path']}, but {entry['sha256']} is pinned"
        elif len(hashes) != self.pieces.counts[at]:
            fault = f"announces {len(hashes)} chunks for {entry['path']}, but {self.pieces.counts[at]} are pinned"
        if fault:
            self.pieces.fail(f"{self.seed}, the seed, {fault}; nothing of it was kept; {distrust(self.seed)}")
            raise ValueError(fault)
        if self.pieces.learn_hashes(at, hashes):
            self.on_hashes(at)

    def _reject(self, name: str, chunk: int) -> None:
        """Discard a bad chunk and name the peer that sent it."""
        self.pieces.not_coming(chunk)
        peer = self.pieces.peers[name]
        # Read once: another thread may add to it before the check below.
        bad = peer.bad_chunks = peer.bad_chunks + 1
        at, offset, _ = self.pieces.place(chunk)
        path = self.pieces.files[at]["path"]
        self.say(f"{name} served bad data for {path} at offset {offset}; it was discarded")
        if bad == BAD_LIMIT:
            self.say(f"nothing more is requested from {name} in this run")
