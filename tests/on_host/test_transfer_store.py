"""Files on a host's disk: chunks, digests, verification."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from muster.on_host import transfer_store, whole_files
from tests.on_host.transfer_runs import MIB, model

CHUNK = 256 << 10


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
