"""How far a transfer is, in words."""

from __future__ import annotations

import time

from muster.on_host.transfer_pieces import Board

RESERVE = 1 << 30
"""Bytes of a file system that a transfer leaves free."""


class Meter:
    """Bytes, rate and time left on this host; the seed adds how far its peers are.

    Args:
        total: bytes of all files.
    """

    def __init__(self, total: int) -> None:
        self.total, self._first, self._since = total, -1, 0.0

    def line(self, board: Board, coming: int, is_seed: bool) -> str:
        """Return one line.

        Args:
            board: what is where.
            coming: bytes that come from outside and are no chunks yet.
            is_seed: whether to tell of the others.
        """
        done = min(self.total, len(board.log) * board.chunk + coming)
        now = time.monotonic()
        if self._first < 0:
            self._first, self._since = done, now
        rate = (done - self._first) / max(now - self._since, 1e-6)
        line = f"{size(done)} of {size(self.total)} ({100 * done / max(1, self.total):.1f} %)"
        if rate and done < self.total:
            line += f", {rate / 1e6:.0f} MB/s, {duration((self.total - done) / rate)} left"
        if is_seed and board.peers and board.chunks:
            slow = min(board.peers.values(), key=lambda peer: peer.count)
            ready = sum(peer.done for peer in board.peers.values())
            share = sum(peer.count for peer in board.peers.values()) / (board.chunks * len(board.peers))
            line += f"; all peers {100 * share:.1f} %, {ready} of {len(board.peers)} complete, last {slow.name}"
            line += f" at {100 * slow.count / board.chunks:.1f} %"
        return line


def size(count: float) -> str:
    """Return bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def duration(seconds: float) -> str:
    """Return seconds for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
