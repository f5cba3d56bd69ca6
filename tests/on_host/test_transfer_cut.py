"""A network that goes dead and a disk that fills up in the middle of a transfer: what has arrived is kept, the next
run goes on from there, and no file has its final name before it is whole."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_sandbox
from tests.on_host.transfer_runs import MIB, AnsweredRuns, Cut, Run, all_of, listing_of, model, requests, same, through

pytestmark = pytest.mark.slow

CHUNKS = 4 * 6 * MIB // (256 << 10)
"""Of the model of these tests."""


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return model(tmp_path / "origin", {f"{n}.safetensors": 6 * MIB for n in range(4)})


@contextlib.contextmanager
def over(asked: list[dict[str, Any]], cut: Cut) -> Iterator[list[dict[str, Any]]]:
    """Let each of the two hosts call the other through a line, and give what is then asked of them."""
    with contextlib.ExitStack() as lines:
        redirected = []
        for request in asked:
            ((name, peer),) = request["peers"].items()
            line = through(peer["address"], peer["port"], caller=request["address"], pace=cut)
            redirected.append({**request, "peers": {name: {**peer, "port": lines.enter_context(line)}}})
        yield redirected


def goes_on(homes: list[Path], origin: Path) -> None:
    """The next run finishes, and asks for less than all."""
    runs = AnsweredRuns(requests(homes, origin))
    assert [status for status, _, _ in runs.ended] == [0, 0], runs.ended
    assert 0 < runs.answer(1)["chunks_from"]["h0"] < CHUNKS
    assert same(origin, homes[1])


def unfinished(home: Path, origin: Path) -> None:
    """Something has arrived, and what bears its final name is whole."""
    assert list(home.glob("*.muster-part"))
    whole = list(home.glob("*.safetensors"))
    for path in whole:
        assert path.read_bytes() == (origin / path.name).read_bytes()
    assert len(whole) < len(listing_of(origin).files)


def test_a_short_cut_of_the_network_is_waited_for(tmp_path: Path, origin: Path) -> None:
    homes = [tmp_path / "h0", tmp_path / "h1"]
    asked = requests(homes, origin, patience=8.0)
    cut = Cut(after=9 * MIB, seconds=3.0)
    with over(asked, cut) as asked:
        ended = all_of(asked)
    assert cut.dead.is_set()
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert same(origin, homes[1])


def test_after_a_long_cut_of_the_network_the_next_run_goes_on(tmp_path: Path, origin: Path) -> None:
    homes = [tmp_path / "h0", tmp_path / "h1"]
    asked = requests(homes, origin, patience=2.0)
    cut = Cut(after=9 * MIB, seconds=60.0)
    with over(asked, cut) as asked:
        ended = all_of(asked)
        cut.mend()
    assert ended[1][0] != 0
    assert "h0, the seed, has been silent" in ended[1][2]
    assert "what is here is kept" in ended[1][2]
    unfinished(homes[1], origin)
    goes_on(homes, origin)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system: room for the gibibyte that stays free, the model of 24 MiB, and what ext4 takes."""
    require_sandbox()
    image, place = tmp_path / "disk.ext4", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as handle:
        handle.truncate((1 << 30) + 128 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path) -> None:
    """Take all but half a mebibyte of a file system."""
    free = os.statvfs(place)
    with (place / "filler").open("wb") as handle:
        os.posix_fallocate(handle.fileno(), 0, free.f_bavail * free.f_frsize - MIB // 2)


@pytest.mark.sandbox
def test_after_a_disk_that_filled_up_the_next_run_goes_on(tmp_path: Path, origin: Path, disk: Path) -> None:
    homes = [tmp_path / "h0", disk / "h1"]
    asked = requests(homes, origin)
    cut = Cut(after=9 * MIB, seconds=60.0)
    with over(asked, cut) as asked:
        runs = [Run(request) for request in asked]
        assert cut.dead.wait(30)
        fill(disk)
        cut.mend()
        ended = [run.end() for run in runs]
    assert ended[1][0] != 0
    assert "cannot write" in ended[1][2]
    assert "No space left on device" in ended[1][2]
    unfinished(homes[1], origin)
    status, _, refused = all_of(requests(homes, origin))[1]
    assert status != 0
    assert "fix: free" in refused  # before anything is written
    (disk / "filler").unlink()
    goes_on(homes, origin)
