"""The parts of the hosts' program, one by one: disk, wire, board, and the command that explains a pin."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.commands.pin import differences
from muster.on_host import transfer_store, transfer_wire, weights_on_disk, whole_files
from muster.on_host.transfer_pieces import Board
from muster.spec.listing import Entry, Listing
from tests.weights.runs import MIB, model

CHUNK = 256 << 10
KEY = b"k" * 32


@pytest.mark.parametrize(
    ("total", "chunk"), [(0, CHUNK), (128 * MIB, CHUNK), (384 * MIB, MIB), (2 << 30, 4 * MIB), (1 << 40, 4 * MIB)]
)
def test_chunks_grow_with_the_whole(total: int, chunk: int) -> None:
    assert transfer_store.chunk_size(total) == chunk


def test_digests_agree_with_hashing_the_whole(tmp_path: Path) -> None:
    place = model(tmp_path, {"x": 3 * CHUNK + 5}) / "x"
    whole, chunks = transfer_store.digests(str(place), CHUNK)
    data = place.read_bytes()
    assert whole == hashlib.sha256(data).hexdigest() == whole_files.sha256(str(place))
    assert chunks == [hashlib.sha256(data[at : at + CHUNK]).hexdigest() for at in range(0, len(data), CHUNK)]


def test_good_chunks_of_a_file_with_holes(tmp_path: Path) -> None:
    place = model(tmp_path, {"x": 8 * CHUNK}) / "x"
    data = place.read_bytes()
    _, hashes = transfer_store.digests(str(place), CHUNK)
    part = tmp_path / "part"
    with part.open("wb") as handle:
        os.truncate(part, len(data))
        handle.seek(2 * CHUNK)
        handle.write(data[2 * CHUNK : 4 * CHUNK])
        handle.seek(5 * CHUNK)
        handle.write(b"wrong" + data[5 * CHUNK + 5 : 6 * CHUNK])
    assert transfer_store.good_chunks(str(part), hashes, CHUNK) == [2, 3]


def test_verification_names_what_is_wrong(tmp_path: Path) -> None:
    model(tmp_path, {"good": 1000, "flipped": 1000})
    wanted = {
        path: {"size": 1000, "sha256": hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()}
        for path in ("good", "flipped")
    }
    (tmp_path / "flipped").write_bytes(b"\0" * 1000)
    wanted["gone"] = wanted["good"]
    found = transfer_store.verify(str(tmp_path), wanted)
    assert set(found) == {"flipped", "gone"}
    assert found["gone"] == "missing"


def pair() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair()
    one.settimeout(5)
    other.settimeout(5)
    return one, other


def shake(caller: bytes, called: bytes, *, me: str = "a") -> tuple[Any, Any]:
    """Return what each side got: a wire, or the error."""
    one, other = pair()
    got: list[Any] = [None, None]

    def side(at: int, work: Any) -> None:
        try:
            got[at] = work()
        except transfer_wire.Broken as error:
            got[at] = error
            (one, other)[at].close()

    threads = [
        threading.Thread(target=side, args=(0, lambda: transfer_wire.call(one, me, "b", caller))),
        threading.Thread(target=side, args=(1, lambda: transfer_wire.answer(other, "b", {"a": called}))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return got[0], got[1]


def test_two_hosts_with_one_key_understand_each_other() -> None:
    called, (name, answered) = shake(KEY, KEY)
    called.send({"get": 3}, b"block")
    assert name == "a"
    assert answered.hear() == ({"get": 3}, b"block")
    answered.send({"data": [3, 4]})
    assert called.hear() == ({"data": [3, 4]}, b"")


@pytest.mark.parametrize(("caller", "called", "me"), [(KEY, b"x" * 32, "a"), (KEY, KEY, "stranger")])
def test_without_the_key_there_is_no_talk(caller: bytes, called: bytes, me: str) -> None:
    one, other = shake(caller, called, me=me)
    assert isinstance(one, transfer_wire.Broken)
    assert isinstance(other, transfer_wire.Broken)


@pytest.mark.parametrize("at", [0, 9, 20, -1])
def test_a_changed_or_repeated_frame_is_not_believed(at: int) -> None:
    one, other = pair()
    sender = transfer_wire.Wire(one, KEY, b"c", b"s")
    tap, far = pair()
    transfer_wire.Wire(tap, KEY, b"c", b"s").send({"get": 3}, b"block")
    frame = bytearray(far.recv(4096))
    sender.send({"get": 3}, b"block")
    hearer = transfer_wire.Wire(other, KEY, b"s", b"c")
    assert hearer.hear()[0] == {"get": 3}
    one.sendall(bytes(frame))  # the same again, with a number that has been used
    with pytest.raises(transfer_wire.Broken):
        hearer.hear()
    one, other = pair()
    frame[at] ^= 1
    one.sendall(bytes(frame))
    one.close()
    with pytest.raises((transfer_wire.Broken, ValueError)):
        transfer_wire.Wire(other, KEY, b"s", b"c").hear()


@given(st.lists(st.integers(min_value=0, max_value=20 * CHUNK), min_size=1, max_size=12))
def test_chunks_cover_every_file_once(sizes: list[int]) -> None:
    board = Board([{"path": str(n), "size": size} for n, size in enumerate(sizes)], [])
    covered = [0] * len(sizes)
    for chunk in range(board.chunks):
        at, offset, size = board.place(chunk)
        assert offset == covered[at]
        assert 0 < size <= board.chunk
        covered[at] += size
    assert covered == sizes


def one_file(chunks: int, here: Sequence[int] = (), **peers: Iterable[int]) -> Board:
    """Return the board of a host that knows one file, which of its chunks are here, and what each peer has told."""
    board = Board([{"path": "x", "size": chunks * CHUNK, "sha256": ""}], list(peers))
    board.know(0, "", ["h"] * chunks)
    board.open_file(0, list(here))
    for name, told in peers.items():
        has = array("I", told)
        board.hear(name, has, len(has), len(has))
    return board


def test_a_seed_deals_every_chunk_once_and_none_that_somebody_has() -> None:
    board = one_file(6, here=range(6), p=[1, 4], q=[])
    assert board.give_fresh(0) is None  # the asker does not know that file yet
    dealt = [board.give_fresh(1) for _ in range(6)]
    assert dealt == [0, 2, 3, 5, None, None]


def test_a_chunk_that_does_not_come_is_asked_of_another() -> None:
    board = one_file(2, p=[0, 1], q=[0, 1])
    first, second = board.pick("p"), board.pick("q")
    assert {first, second} == {0, 1}
    assert board.pick("p") is None
    assert first is not None
    board.lost(first)
    assert board.pick("q") == first


def test_of_the_next_chunks_the_rarest_is_asked() -> None:
    board = one_file(40, p=range(40), q=set(range(40)) - {5, 30})
    assert board.pick("p") == 5
    assert 30 not in [board.pick("p") for _ in range(3)]  # as rare, and far from its turn


def test_hosts_that_lack_the_same_ask_one_peer_for_different_chunks() -> None:
    asked = {one_file(40, p=range(40)).pick("p") for _ in range(20)}
    assert len(asked) > 4
    assert asked <= set(range(16))


def test_prune_spares_what_a_unit_or_a_process_names(tmp_path: Path) -> None:
    root = tmp_path / "org--model"
    for name in "abcde":
        model(root / (name * 40), {"x": 10})
    (root / "current").symlink_to("b" * 40)
    unit = tmp_path / "etc" / "systemd" / "system" / "muster-g.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(f"ExecStart=/x serve {root}/{'c' * 40}\n")
    process = tmp_path / "proc" / "77" / "cmdline"
    process.parent.mkdir(parents=True)
    process.write_bytes(f"vllm\0serve\0{root}/{'d' * 40}\0".encode())
    asked = {
        "do": "prune",
        "directory": f"{root}/{'a' * 40}",
        "etc": str(tmp_path / "etc"),
        "proc": str(tmp_path / "proc"),
    }
    dry = weights_on_disk.main({**asked, "dry": True})
    assert list(dry["removed"]) == ["e" * 40]
    assert (root / ("e" * 40)).is_dir()
    assert weights_on_disk.main(asked)["removed"] == dry["removed"]
    assert {path.name for path in root.iterdir()} == {*(name * 40 for name in "abcd"), "current"}


def test_a_link_is_not_moved_to_what_is_not_complete(tmp_path: Path) -> None:
    model(tmp_path / ("a" * 40), {"x": 10})
    with pytest.raises(OSError, match="is not complete"):
        weights_on_disk.main({"do": "link", "directory": str(tmp_path / ("a" * 40))})


def test_a_pin_that_moves_says_what_has_changed() -> None:
    old = Listing("m", "a" * 40, "hub", (Entry("gone", 1, "1" * 64), Entry("x", 1, "1" * 64)))
    new = Listing("m", "b" * 40, "hub", (Entry("new", MIB, "1" * 64), Entry("x", 1, "2" * 64)))
    lines = differences(old, new)
    assert lines[0] == f"was m at {'a' * 40}, now m at {'b' * 40}"
    assert lines[1:] == ["  gone    gone", "  new     new, 1 MiB", "  changed x"]
    assert differences(old, old) == []
