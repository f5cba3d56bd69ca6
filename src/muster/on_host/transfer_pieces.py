"""Which chunks are here, under way, and at which peers: all that one host knows of a transfer, under one lock."""

from __future__ import annotations

import heapq
import random
import threading
import time
from array import array
from typing import Any

from muster.on_host import transfer_store as store

LACKING, COMING, HERE = 0, 1, 2
_IMPATIENCE = 3.0
"""Seconds; a chunk that has been coming for longer is asked of another peer too when there is nothing else to ask."""
_SAMPLE = 16
"""Chunks that are compared for rarity."""


class Peer:
    """Another host, as far as this one knows."""

    def __init__(self, name: str, chunks: int) -> None:
        self.name = name
        self.has = bytearray(chunks)
        self.wanted: list[int] = []
        self.cursor = 0
        self.files_known = 0
        self.count = 0
        self.done = False
        self.told = False
        self.seen = time.monotonic()
        self.dry_at = -1
        self.wrong = 0
        self.gave = 0

    @property
    def silent(self) -> float:
        """Seconds since it was last heard of."""
        return time.monotonic() - self.seen


class Board:
    """State of all chunks of one revision on this host.

    Args:
        files: path, size, and as far as known sha256; in an order that all hosts share.
        peers: names of the other hosts.
    """

    def __init__(self, files: list[dict[str, Any]], peers: list[str]) -> None:
        self.files = files
        self.chunk = store.chunk_size(sum(int(entry["size"]) for entry in files))
        self.counts = [-(-int(entry["size"]) // self.chunk) for entry in files]
        self.base = [sum(self.counts[:at]) for at in range(len(files))]
        self.chunks = sum(self.counts)
        self.file_of = array("I", [at for at, count in enumerate(self.counts) for _ in range(count)])
        self.state = bytearray(self.chunks)
        self.owners = bytearray(self.chunks)
        self.fresh = 0
        self.asked: dict[int, float] = {}
        self.log = array("I")
        self.hashes: dict[int, list[str]] = {}
        self.file_log: list[int] = []
        self.told: list[int] = []
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
        """How many of the files that the seed has told of, from the first, can be received."""
        for number, at in enumerate(self.told):
            if at not in self.opened:
                return number
        return len(self.told)

    def hash_of(self, chunk: int) -> str:
        """Return the SHA-256 that a chunk must have."""
        at = self.file_of[chunk]
        return self.hashes[at][chunk - self.base[at]]

    def fail(self, reason: str) -> None:
        """End the transfer on this host; the first reason stands."""
        with self.changed:
            self.error = self.error or reason
            self.changed.notify_all()

    def know(self, at: int, sha256: str, hashes: list[str]) -> bool:
        """Note what the chunks of a file must be; return whether that is news."""
        with self.changed:
            if at in self.hashes:
                return False
            self.told.append(at)
            if len(hashes) != self.counts[at]:
                raise ValueError(f"{len(hashes)} digests for {self.counts[at]} chunks of {self.files[at]['path']}")
            self.files[at]["sha256"] = sha256
            self.hashes[at] = hashes
            return True

    def open_file(self, at: int, here: list[int]) -> None:
        """Begin with a file whose hashes are known: tell which of its chunks are here, want the others."""
        with self.changed:
            first = self.base[at]
            for number in here:
                self._got(first + number)
            for chunk in range(first, first + self.counts[at]):
                if self.state[chunk] == LACKING:
                    for peer in self.peers.values():
                        if peer.has[chunk]:
                            heapq.heappush(peer.wanted, chunk)
            self.opened.add(at)
            self.file_log.append(at)
            self.changed.notify_all()

    def got(self, chunk: int, peer: str) -> bool:
        """Note a chunk as here; return whether its file now is whole."""
        with self.changed:
            if self.state[chunk] == HERE:
                return False
            self.peers[peer].gave += 1
            return self._got(chunk)  # wakes nobody: it gives nothing to ask for, and is told with the next news

    def _got(self, chunk: int) -> bool:
        at = self.file_of[chunk]
        self.state[chunk] = HERE
        self.asked.pop(chunk, None)
        self.log.append(chunk)
        self.lacking[at] -= 1
        return not self.lacking[at]

    def lost(self, chunk: int) -> None:
        """Note that a chunk that was coming will not come from there."""
        with self.changed:
            self.asked.pop(chunk, None)
            if self.state[chunk] == COMING:
                self.state[chunk] = LACKING
                for peer in self.peers.values():
                    if peer.has[chunk]:
                        heapq.heappush(peer.wanted, chunk)
            self.changed.notify_all()

    def tell_end(self, name: str) -> None:
        """Note that a peer knows that this host wants nothing more."""
        with self.changed:
            self.peers[name].told = True
            self.changed.notify_all()

    def verify(self, at: int) -> None:
        """Note a file as whole and verified."""
        with self.changed:
            self.verified.add(at)
            self.changed.notify_all()

    def hear(self, name: str, chunks: array[int], cursor: int, count: int) -> None:
        """Note what a peer has gained."""
        with self.changed:
            peer = self.peers[name]
            peer.cursor, peer.count = cursor, count
            for chunk in chunks:
                if chunk < self.chunks and not peer.has[chunk]:
                    peer.has[chunk] = 1
                    self.owners[chunk] = min(255, self.owners[chunk] + 1)
                    if self.state[chunk] == LACKING and self.file_of[chunk] in self.opened:
                        heapq.heappush(peer.wanted, chunk)
            if chunks:
                self.changed.notify_all()

    def forget(self, name: str) -> None:
        """Note that a peer has begun anew and has told nothing yet."""
        with self.changed:
            peer = self.peers[name]
            for chunk in range(self.chunks):
                if peer.has[chunk]:
                    self.owners[chunk] = max(0, self.owners[chunk] - 1)
            peer.has, peer.wanted, peer.cursor, peer.files_known = bytearray(self.chunks), [], 0, 0

    def pick(self, name: str) -> int | None:
        """Choose a chunk to ask of a peer and note it as coming. Called under the lock.

        It is the one that the fewest hosts have among the first in order: hosts that lack the same so ask a peer for
        different chunks, and its link carries each once; and files become whole about one after another, so that they
        are verified while the rest is on its way.
        """
        peer = self.peers[name]
        drawn: list[int] = []
        while peer.wanted and len(drawn) < _SAMPLE:
            chunk = heapq.heappop(peer.wanted)
            if self.state[chunk] == LACKING and chunk not in drawn:
                drawn.append(chunk)
        best = min(drawn, key=lambda chunk: (self.owners[chunk], random.random())) if drawn else self._overdue(peer)
        for chunk in drawn:
            if chunk != best:
                heapq.heappush(peer.wanted, chunk)
        if best is not None:
            self.state[best] = COMING
            self.asked[best] = time.monotonic()
        return best

    def _overdue(self, peer: Peer) -> int | None:
        now = time.monotonic()
        for chunk, since in self.asked.items():
            if now - since > _IMPATIENCE and peer.has[chunk]:
                return chunk
        return None

    def give_fresh(self, ready: int) -> int | None:
        """Choose a chunk that this host, the seed, has dealt to nobody yet. Called under the lock.

        Args:
            ready: how many files of `file_log`, from the first, the asking host can receive.
        """
        able = set(self.file_log[:ready])
        while self.fresh < len(self.log) and self.file_of[self.log[self.fresh]] in able:
            chunk = self.log[self.fresh]
            self.fresh += 1
            if not self.owners[chunk]:
                return chunk
        return None
