"""How fast weights are read: which bytes, that the page cache neither lies nor suffers, and what is kept of it."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.on_host import kept_rate, read_rate, weights_on_disk
from muster.on_host import transfer_store as store
from tests.cached_files import cached, files_of, forget
from tests.on_host.transfer_runs import MIB, listing_of

FILES = st.lists(st.integers(0, 7 * MIB), min_size=1, max_size=5)


@given(FILES, st.integers(0, 20 * MIB), st.integers(0, 20 * MIB), st.integers(1, 9))
def test_readers_share_a_part_and_no_byte_is_read_twice(sizes: list[int], begin: int, count: int, readers: int) -> None:
    files = [(f"f{number}", size) for number, size in enumerate(sizes)]
    stretches = read_rate.shared(files, begin, count, readers)
    assert len(stretches) == readers
    seen = set()
    for part in (part for stretch in stretches for part in stretch):
        assert part.offset % MIB == 0  # mmap takes no other
        assert part.length > 0
        assert part.offset + part.length <= dict(files)[part.path]
        steps = {(part.path, part.offset + at) for at in range(0, part.length, MIB)}
        assert not seen & steps
        seen |= steps
    room = sum(size // MIB for size in sizes) - begin // MIB
    assert len(seen) == max(0, min(room, count // readers // MIB * readers))


def revision(place: Path, *sizes: int) -> dict[str, Any]:
    """Stage files as a complete revision; return the request that measures it."""
    directory = place / "org--model" / ("c" * 40)
    files_of(directory, *sizes)
    listing = listing_of(directory)
    stamps = store.Stamps(str(directory))
    for entry in listing.files:
        stamps.add(entry.path, entry.sha256)
    rows = {entry.path: {"size": entry.size, "sha256": entry.sha256} for entry in listing.files}
    store.finish(str(directory), {"format": 1, "files": rows}, {}, MIB)
    asked = {"directory": str(directory), "manifest": listing.digest, "readers": 2}
    return {**asked, "least": MIB, "bytes": 1 << 30}


def test_the_cache_is_as_it_was(tmp_path: Path) -> None:
    cold, warm, other = files_of(tmp_path, 32 * MIB, 32 * MIB, 8 * MIB)
    forget(cold)
    for path in (warm, other):
        path.read_bytes()
    stretches = read_rate.shared([(str(cold), 32 * MIB), (str(warm), 32 * MIB)], 0, 64 * MIB, 2)
    assert read_rate.measured(stretches) > 0
    assert cached(cold) < 4 * MIB
    assert cached(warm) == 32 * MIB
    assert cached(other) == 8 * MIB


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Hold all of a file mapped in another process."""
    text = "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n"
    text += "any(m[at] > 999 for at in range(0, len(m), 4096)); print('mapped', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", text, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mapped\n"
        try:
            yield
        finally:
            process.kill()


def test_what_the_cache_cannot_let_go_is_not_taken_for_the_disk(tmp_path: Path) -> None:
    (path,) = files_of(tmp_path, 64 * MIB)
    stretches = read_rate.shared([(str(path), 64 * MIB)], 0, 64 * MIB, 1)
    with mapped(path), pytest.raises(OSError, match="a process has them mapped"):
        read_rate.measured(stretches)
    assert read_rate.measured(stretches) > 0


def test_files_that_were_just_written_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(64 * MIB))
    assert read_rate.measured(read_rate.shared([(str(path), 64 * MIB)], 0, 64 * MIB, 2)) > 0


def test_two_readers_of_the_same_bytes_are_no_sign_of_a_cache_that_keeps_them(tmp_path: Path) -> None:
    (path,) = files_of(tmp_path, 64 * MIB)
    assert read_rate.measured(read_rate.shared([(str(path), 64 * MIB)], 0, 64 * MIB, 1) * 2) > 0


def test_a_link_is_not_read(tmp_path: Path) -> None:
    (path,) = files_of(tmp_path / "other", 4 * MIB)
    link = tmp_path / "model.safetensors"
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic link"):
        read_rate.measured(read_rate.shared([(str(link), 4 * MIB)], 0, 4 * MIB, 1))


def test_a_file_that_is_cut_meanwhile_ends_the_reader_alone(tmp_path: Path) -> None:
    (path,) = files_of(tmp_path, 2 * MIB)
    with pytest.raises(OSError, match="a reader died"):
        read_rate._read([[read_rate.Range(str(path), 0, 8 * MIB)]], 5.0)


def test_readers_stop_in_time(tmp_path: Path) -> None:
    (path,) = files_of(tmp_path, 64 * MIB)
    began = time.monotonic()
    done, _ = read_rate._read(read_rate.shared([(str(path), 64 * MIB)], 0, 64 * MIB, 1), 0.0)
    assert (done, time.monotonic() - began < 5) == (0, True)


def test_a_measurement_is_kept_beside_the_records(tmp_path: Path) -> None:
    asked = revision(tmp_path, 24 * MIB, 9 * MIB + 5)
    measured = read_rate.main(asked)
    assert measured["why"] == ""
    assert measured["rate"]["readers"] == 2
    assert 0 <= measured["rate"]["age"] < 60
    assert 0 < measured["rate"]["one"] < 1e12
    assert 0 < measured["rate"]["all"] < 1e12
    probed = weights_on_disk.probe(asked)
    assert probed["complete"], probed
    assert probed["rate"]["all"] == measured["rate"]["all"]
    assert kept_rate.main(asked)["rate"]["one"] == measured["rate"]["one"]
    assert kept_rate.is_fresh(probed["rate"], 2)
    assert not kept_rate.is_fresh(probed["rate"], 8)
    assert not kept_rate.is_fresh({**probed["rate"], "age": kept_rate.MAX_AGE + 1}, 2)


def test_a_network_is_told_by_its_file_system(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "30 1 0:5 / /dev rw shared:2 - devtmpfs dev rw\n"
        f"41 30 {os.major(device)}:{os.minor(device)} / /srv rw,relatime shared:9 master:1 - nfs4 store:/w rw\n"
    )
    assert kept_rate.file_system(str(tmp_path), str(mounts)) == "nfs4"
    assert kept_rate.file_system(str(tmp_path / "gone"), str(mounts)) == ""
    assert kept_rate.file_system(str(tmp_path), str(tmp_path / "none")) == ""
    assert kept_rate.file_system("/dev/shm") == "tmpfs"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"least": 1 << 30}, "too few to measure"),
        ({"manifest": "0" * 64}, "is not complete"),
        ({"readers": 60}, "nothing"),
    ],
)
def test_a_disk_that_is_not_measured_is_no_error(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    measured = read_rate.main({**revision(tmp_path, 20 * MIB), **change})
    assert measured["rate"] is None
    assert why in measured["why"]


GOOD = {"one": 1, "all": 2, "readers": 3, "at": 1}


@pytest.mark.parametrize(
    "record",
    [
        "",
        "[]",
        "{}",
        json.dumps({**GOOD, "device": 0}),
        *(json.dumps({**GOOD, "device": "own", **bad}) for bad in (
            {"one": 0}, {"one": -1}, {"all": 1e400}, {"all": True}, {"readers": "3"}, {"at": 10**20}, {"one": 10**14},
            {"at": 4 * 10**9},
        )),
    ],
)  # fmt: skip
def test_a_record_that_anybody_could_have_written_is_none(tmp_path: Path, record: str) -> None:
    own = str(tmp_path.stat().st_dev)
    directory = tmp_path / "c"
    directory.mkdir()
    place = Path(kept_rate.path(str(directory)))
    place.write_text(record.replace('"own"', own))
    assert kept_rate.of(str(directory)) is None
    place.write_text(json.dumps({**GOOD, "device": int(own)}))
    assert kept_rate.of(str(directory)) is not None


def test_mmap_takes_offsets_in_whole_steps() -> None:
    assert read_rate.STEP % mmap.ALLOCATIONGRANULARITY == 0
