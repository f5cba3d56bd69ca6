"""Which chunk is requested from whom, and what the seed deals."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from muster.on_host.transfer_pieces import PieceMap

CHUNK = 256 << 10


@given(st.lists(st.integers(min_value=0, max_value=20 * CHUNK), min_size=1, max_size=12))
def test_chunks_cover_every_file_once(sizes: list[int]) -> None:
    pieces = PieceMap([{"path": str(n), "size": size} for n, size in enumerate(sizes)], [])
    covered = [0] * len(sizes)
    for chunk in range(pieces.chunks):
        at, offset, size = pieces.place(chunk)
        assert offset == covered[at]
        assert 0 < size <= pieces.chunk
        covered[at] += size
    assert covered == sizes


def one_file(chunks: int, here: Sequence[int] = (), **peers: Iterable[int]) -> PieceMap:
    """Return the piece map of a host that knows one file, with the chunks here and at each peer."""
    pieces = PieceMap([{"path": "x", "size": chunks * CHUNK, "sha256": ""}], list(peers))
    pieces.learn_hashes(0, ["h"] * chunks)
    pieces.open_file(0, list(here))
    for name, gained in peers.items():
        has = array("I", gained)
        pieces.learn_gains(name, has, len(has), len(has))
    return pieces


def test_a_seed_deals_every_chunk_once_and_none_that_somebody_has() -> None:
    pieces = one_file(6, here=range(6), p=[1, 4], q=[])
    assert pieces.deal(0) is None  # the asker does not know that file yet
    dealt = [pieces.deal(1) for _ in range(6)]
    assert dealt == [0, 2, 3, 5, None, None]


def test_a_chunk_that_does_not_come_is_asked_of_another() -> None:
    pieces = one_file(2, p=[0, 1], q=[0, 1])
    first, second = pieces.choose("p"), pieces.choose("q")
    assert {first, second} == {0, 1}
    assert pieces.choose("p") is None
    assert first is not None
    pieces.not_coming(first)
    assert pieces.choose("q") == first


def test_of_the_next_chunks_the_rarest_is_asked() -> None:
    pieces = one_file(40, p=range(40), q=set(range(40)) - {5, 30})
    assert pieces.choose("p") == 5
    assert 30 not in [pieces.choose("p") for _ in range(3)]  # as rare, and far from its turn


def test_hosts_that_lack_the_same_ask_one_peer_for_different_chunks() -> None:
    asked = {one_file(40, p=range(40)).choose("p") for _ in range(20)}
    assert len(asked) > 4
    assert asked <= set(range(16))
