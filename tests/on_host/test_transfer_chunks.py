"""Chunks: their size, their digests, and which of a file are right."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from muster.on_host import transfer_chunks, whole_files
from tests.on_host.transfer_runs import MIB, model

CHUNK = 256 << 10


@pytest.mark.parametrize(
    ("total", "chunk"), [(0, CHUNK), (128 * MIB, CHUNK), (384 * MIB, MIB), (2 << 30, 4 * MIB), (1 << 40, 4 * MIB)]
)
def test_chunks_grow_with_the_whole(total: int, chunk: int) -> None:
    assert transfer_chunks.chunk_size(total) == chunk


def test_digests_agree_with_hashing_the_whole(tmp_path: Path) -> None:
    place = model(tmp_path, {"x": 3 * CHUNK + 5}) / "x"
    whole, chunks = transfer_chunks.digests(str(place), CHUNK)
    data = place.read_bytes()
    assert whole == hashlib.sha256(data).hexdigest() == whole_files.sha256(str(place))
    assert chunks == [hashlib.sha256(data[at : at + CHUNK]).hexdigest() for at in range(0, len(data), CHUNK)]


def test_good_chunks_of_a_file_with_holes(tmp_path: Path) -> None:
    place = model(tmp_path, {"x": 8 * CHUNK}) / "x"
    data = place.read_bytes()
    _, hashes = transfer_chunks.digests(str(place), CHUNK)
    part = tmp_path / "part"
    with part.open("wb") as handle:
        os.truncate(part, len(data))
        handle.seek(2 * CHUNK)
        handle.write(data[2 * CHUNK : 4 * CHUNK])
        handle.seek(5 * CHUNK)
        handle.write(b"wrong" + data[5 * CHUNK + 5 : 6 * CHUNK])
    assert transfer_chunks.good_chunks(str(part), hashes, CHUNK) == [2, 3]
