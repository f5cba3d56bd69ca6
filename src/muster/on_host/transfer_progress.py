"""How far a transfer has come, in words."""

from __future__ import annotations

import time

from muster.on_host.in_words import duration, size
from muster.on_host.transfer_pieces import PieceMap

RESERVE = 1 << 30
"""Bytes of a file system that a transfer leaves free."""


class Meter:
    """Bytes, rate and time left on this host; the seed adds the progress of its peers.

    Args:
        total: bytes of all files.
    """

    def __init__(self, total: int) -> None:
        self.total, self._first, self._since = total, -1, 0.0

    def line(self, pieces: PieceMap, coming: int, is_seed: bool) -> str:
        """Return one line.

        Args:
            pieces: of the transfer.
            coming: bytes from outside that are not chunks yet.
            is_seed: whether to add the peers.
        """
        done = min(self.total, len(pieces.log) * pieces.chunk + coming)
        now = time.monotonic()
        if self._first < 0:
            self._first, self._since = done, now
        rate = (done - self._first) / max(now - self._since, 1e-6)
        line = f"{size(done)} of {size(self.total)} ({100 * done / max(1, self.total):.1f} %)"
        if rate and done < self.total:
            line += f", {rate / 1e6:.0f} MB/s, {duration((self.total - done) / rate)} left"
        if is_seed and pieces.peers and pieces.chunks:
            slow = min(pieces.peers.values(), key=lambda peer: peer.count)
            ready = sum(peer.done for peer in pieces.peers.values())
            share = sum(peer.count for peer in pieces.peers.values()) / (pieces.chunks * len(pieces.peers))
            line += f"; all peers {100 * share:.1f} %, {ready} of {len(pieces.peers)} complete, last {slow.name}"
            line += f" at {100 * slow.count / pieces.chunks:.1f} %"
        return line
