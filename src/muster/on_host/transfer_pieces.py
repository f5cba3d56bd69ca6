"""The piece map: which chunks are here, on their way, or at a peer. All a host knows of a transfer, under one lock."""

from __future__ import annotations

import heapq
import random
import threading
import time
from array import array
from typing import Any

from muster.on_host import transfer_chunks

LACKING, COMING, HERE = 0, 1, 2
_IMPATIENCE = 3.0
"""Seconds after which an outstanding chunk is also requested from another peer, if there is nothing else to request."""
_SAMPLE = 16
"""Candidates compared for rarity."""


class Peer:
    """What this host knows of another."""

    def __init__(self, name: str, chunks: int) -> None:
        self.name = name
        self.has = bytearray(chunks)
        self.candidates: list[int] = []
        self.cursor = 0
        self.files_known = 0
        self.count = 0
        self.done = False
        self.heard_end = False
        self.last_heard = time.monotonic()
        self.dry_at = -1
        self.bad_chunks = 0
        self.served = 0

    @property
    def silent(self) -> float:
        """Seconds since its last message."""
        return time.monotonic() - self.last_heard


class PieceMap:
    """State of all chunks of one revision on this host.

    Args:
        files: {path, size, sha256}, in an order that all hosts share.
        peers: names of the other hosts.
    """

    def __init__(self, files: list[dict[str, Any]], peers: list[str]) -> None:
        self.files = files
        self.chunk = transfer_chunks.chunk_size(sum(int(entry["size"]) for entry in files))
        self.counts = [-(-int(entry["size"]) // self.chunk) for entry in files]
        self.base = [sum(self.counts[:at]) for at in range(len(files))]
        self.chunks = sum(self.counts)
        self.file_of = array("I", [at for at, count in enumerate(self.counts) for _ in range(count)])
        self.state = bytearray(self.chunks)
        self.owners = bytearray(self.chunks)
        self.dealt = 0
        self.requested: dict[int, float] = {}
        self.log = array("I")
        self.hashes: dict[int, list[str]] = {}  # in the order of announcement
        self.file_log: list[int] = []
        self.opened: set[int] = set()
        self.lacking = list(self.counts)
        self.verified: set[int] = set()
        self.peers = {name: Peer(name, self.chunks) for name in peers}
        self.error = ""
        self.changed = threading.Condition()

    @property
    def done(self) -> bool:
        """Whether every file is verified under its final name."""
        return len(self.verified) == len(self.files)

    def place(self, chunk: int) -> tuple[int, int, int]:
        """Return the file, the offset and the size of a chunk."""
        at = self.file_of[chunk]
        offset = (chunk - self.base[at]) * self.chunk
        return at, offset, min(self.chunk, self.files[at]["size"] - offset)

    @property
    def ready(self) -> int:
        """How many of the announced files, in the order of announcement, can be received."""
        for number, at in enumerate(self.hashes):
            if at not in self.opened:
                return number
        return len(self.hashes)

    def hash_of(self, chunk: int) -> str:
        """Return the SHA-256 that a chunk must have."""
        at = self.file_of[chunk]
        return self.hashes[at][chunk - self.base[at]]

    def fail(self, reason: str) -> None:
        """End the transfer on this host; only the first reason is kept."""
        with self.changed:
            self.error = self.error or reason
            self.changed.notify_all()

    def learn_hashes(self, at: int, hashes: list[str]) -> bool:
        """Note the digests of a file's chunks; return whether they are new.

        Raises:
            ValueError: there are more or fewer than the file has chunks.
        """
        with self.changed:
            if len(hashes) != self.counts[at]:
                raise ValueError(f"{len(hashes)} digests for {self.counts[at]} chunks of {self.files[at]['path']}")
            if at in self.hashes:
                return False
            self.hashes[at] = hashes
            return True

    def open_file(self, at: int, here: list[int]) -> None:
        """Open a file whose digests are known: note the chunks that are here, make the others candidates."""
        with self.changed:
            first = self.base[at]
            for number in here:
                self._note_here(first + number)
            for chunk in range(first, first + self.counts[at]):
                if self.state[chunk] == LACKING:
                    self._make_candidate(chunk)
            self.opened.add(at)
            self.file_log.append(at)
            self.changed.notify_all()

    def received(self, chunk: int, peer: str) -> bool:
        """Note that a chunk has arrived; return whether its file is now whole."""
        with self.changed:
            if self.state[chunk] == HERE:
                return False
            self.peers[peer].served += 1
            # No notify: it offers nothing new to request; peers learn of it with the next update.
            return self._note_here(chunk)

    def _note_here(self, chunk: int) -> bool:
        at = self.file_of[chunk]
        self.state[chunk] = HERE
        self.requested.pop(chunk, None)
        self.log.append(chunk)
        self.lacking[at] -= 1
        return not self.lacking[at]

    def not_coming(self, chunk: int) -> None:
        """Note that an outstanding chunk will not come from the peer that was asked."""
        with self.changed:
            self.requested.pop(chunk, None)
            if self.state[chunk] == COMING:
                self.state[chunk] = LACKING
                self._make_candidate(chunk)
            self.changed.notify_all()

    def _make_candidate(self, chunk: int) -> None:
        for peer in self.peers.values():
            if peer.has[chunk]:
                heapq.heappush(peer.candidates, chunk)

    def note_end_heard(self, name: str) -> None:
        """Note that a peer knows that this host needs nothing more."""
        with self.changed:
            self.peers[name].heard_end = True
            self.changed.notify_all()

    def note_verified(self, at: int) -> None:
        """Note that a file is whole and verified."""
        with self.changed:
            self.verified.add(at)
            self.changed.notify_all()

    def learn_gains(self, name: str, chunks: array[int], cursor: int, count: int) -> None:
        """Note the chunks that a peer has gained."""
        with self.changed:
            peer = self.peers[name]
            peer.cursor, peer.count = cursor, count
            for chunk in chunks:
                if chunk < self.chunks and not peer.has[chunk]:
                    peer.has[chunk] = 1
                    self.owners[chunk] = min(255, self.owners[chunk] + 1)
                    if self.state[chunk] == LACKING and self.file_of[chunk] in self.opened:
                        heapq.heappush(peer.candidates, chunk)
            if chunks:
                self.changed.notify_all()

    def forget_peer(self, name: str) -> None:
        """Note that a peer has started again: whatever it reported before no longer counts."""
        with self.changed:
            peer = self.peers[name]
            for chunk in range(self.chunks):
                if peer.has[chunk]:
                    self.owners[chunk] = max(0, self.owners[chunk] - 1)
            peer.has, peer.candidates, peer.cursor, peer.files_known = bytearray(self.chunks), [], 0, 0

    def choose(self, name: str) -> int | None:
        """Choose a chunk to request from a peer and note it as outstanding. The caller holds the lock.

        It is the rarest of the next few in order. Hosts that lack the same chunks then request different ones, so a
        peer's link carries each once; and files complete roughly in order, so they are verified while the rest arrives.
        """
        peer = self.peers[name]
        sample: list[int] = []
        while peer.candidates and len(sample) < _SAMPLE:
            chunk = heapq.heappop(peer.candidates)
            if self.state[chunk] == LACKING and chunk not in sample:
                sample.append(chunk)
        best = min(sample, key=lambda chunk: (self.owners[chunk], random.random())) if sample else self._overdue(peer)
        for chunk in sample:
            if chunk != best:
                heapq.heappush(peer.candidates, chunk)
        if best is not None:
            self.state[best] = COMING
            self.requested[best] = time.monotonic()
        return best

    def _overdue(self, peer: Peer) -> int | None:
        now = time.monotonic()
        for chunk, since in self.requested.items():
            if now - since > _IMPATIENCE and peer.has[chunk]:
                return chunk
        return None

    def deal(self, ready: int) -> int | None:
        """Choose a chunk that this host, the seed, has not dealt yet. The caller holds the lock.

        Args:
            ready: how many files of `file_log`, from the first, the requesting host can receive.
        """
        able = set(self.file_log[:ready])
        while self.dealt < len(self.log) and self.file_of[self.log[self.dealt]] in able:
            chunk = self.log[self.dealt]
            self.dealt += 1
            if not self.owners[chunk]:
                return chunk
        return None
