"""The record of the loaders: what is kept, for whom it stands, and what anybody else could have put in its place."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import ask_guard, kept_loaders, kept_rate

LOADERS = {"auto": {"rate": 10**9, "peak": 0}, "instanttensor": {"rate": 9 * 10**9, "peak": 2 << 30}}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "org--model" / ("c" * 40)
    place.mkdir(parents=True)
    return place


def put(directory: Path, text: str | bytes) -> dict[str, Any] | None:
    """Put something in the record's place and return what is read of it."""
    place = Path(kept_loaders.path(str(directory)))
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    return kept_loaders.of(str(directory))


def record(directory: Path, **change: Any) -> dict[str, Any]:
    """Return what `keep` writes, with other values."""
    device = directory.stat().st_dev
    return {"engine": "e", "ranks": "r", "device": device, "at": int(time.time()), "loaders": LOADERS, **change}


def test_what_is_kept_is_read_again(directory: Path) -> None:
    assert kept_loaders.of(str(directory)) is None
    old = os.umask(0o077)
    try:
        kept_loaders.keep(f"{directory}/", "vllm-1", "8-1-8", LOADERS)
    finally:
        os.umask(old)
    kept = kept_loaders.of(str(directory))
    assert kept is not None
    assert {**kept, "age": 0} == {"engine": "vllm-1", "ranks": "8-1-8", "age": 0, "loaders": LOADERS}
    assert 0 <= kept["age"] < 60
    assert kept_loaders.main({"directory": str(directory)}) == {"loaders": kept_loaders.of(str(directory))}
    (file,) = (path for path in directory.parent.iterdir() if path != directory)
    assert file.name == f"{directory.name}.loaders.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644  # the guard's user reads it


def test_it_stands_for_one_engine_and_layout_for_a_month(directory: Path) -> None:
    kept_loaders.keep(str(directory), "vllm-1", "8-1-8", LOADERS)
    kept = kept_loaders.of(str(directory))
    assert kept is not None
    assert kept_loaders.is_fresh(kept, ["vllm-0", "vllm-1"], "8-1-8")
    assert not kept_loaders.is_fresh(kept, ["vllm-0"], "8-1-8")
    assert not kept_loaders.is_fresh(kept, ["vllm-1"], "8-8-8")
    assert not kept_loaders.is_fresh({**kept, "age": kept_rate.MAX_AGE + 1}, ["vllm-1"], "8-1-8")
    assert not kept_loaders.is_fresh(None, ["vllm-1"], "8-1-8")


@pytest.mark.parametrize(
    "change",
    [
        {"device": 0}, {"device": None}, {"device": "1"},
        {"at": 4 * 10**9}, {"at": 0}, {"at": None}, {"at": 1.5}, {"at": True}, {"at": 10**20},
        {"engine": 1}, {"engine": None}, {"engine": "x" * 201}, {"ranks": ["r"]},
        {"loaders": []}, {"loaders": {}}, {"loaders": None}, {"loaders": {"auto": 5}},
        {"more": "x" * 20_000},
    ],
)  # fmt: skip
def test_a_record_that_anybody_could_have_written_is_none(directory: Path, change: dict[str, Any]) -> None:
    assert put(directory, json.dumps(record(directory))) is not None
    assert put(directory, json.dumps(record(directory, **change))) is None


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"{", b"\xff\xfe", b"[" * 10_000, b"9" * 10_000])
def test_what_is_no_record_is_none(directory: Path, text: bytes) -> None:
    assert put(directory, text) is None


@pytest.mark.parametrize(
    "figures",
    [
        {"rate": 0, "peak": 0}, {"rate": -1, "peak": 0}, {"rate": 1.5, "peak": 0}, {"rate": True, "peak": 0},
        {"rate": 10**14, "peak": 0}, {"rate": 1, "peak": -1}, {"rate": 1, "peak": None}, {"rate": "1", "peak": 0},
        {"rate": 1}, {"error": "x"}, [], None, "x",
    ],
)  # fmt: skip
def test_a_loader_without_figures_is_left_out_alone(directory: Path, figures: Any) -> None:
    kept = put(directory, json.dumps(record(directory, loaders={**LOADERS, "runai_streamer": figures})))
    assert kept is not None
    assert kept["loaders"] == LOADERS


def test_what_others_put_in_the_records_place_is_not_followed(directory: Path) -> None:
    place = Path(kept_loaders.path(str(directory)))
    other = directory.parent / "other.json"
    other.write_text(json.dumps(record(directory)))
    place.symlink_to(other)
    directory.parent.chmod(0o777)
    assert kept_loaders.of(str(directory)) is None
    text = other.read_text()
    kept_loaders.keep(str(directory), "e", "r", LOADERS)
    assert not place.is_symlink()
    assert other.read_text() == text
    place.unlink()
    os.mkfifo(place)
    assert kept_loaders.of(str(directory)) is None


def test_a_record_of_weights_that_are_gone_is_none(directory: Path) -> None:
    kept_loaders.keep(str(directory), "e", "r", LOADERS)
    directory.rmdir()
    assert kept_loaders.of(str(directory)) is None


def test_what_is_read_of_a_record_is_bounded(directory: Path) -> None:
    big = {"auto": {"rate": 1, "peak": 10**15}, "a" * 41: {"rate": 1, "peak": 0}, "a b": {"rate": 1, "peak": 0}}
    kept = put(directory, json.dumps(record(directory, loaders=big)))
    assert kept is not None
    assert kept["loaders"] == {"auto": {"rate": 1, "peak": 10**13}}
    assert put(directory, json.dumps({**record(directory), "engine": "a\nb"})) is None
    few = {"a" * number: {"rate": 1, "peak": 0} for number in range(1, 40)}
    kept = put(directory, json.dumps(record(directory, loaders=few)))
    assert kept is not None
    assert len(kept["loaders"]) == 8


def test_a_guards_status_comes_with_it(directory: Path, tmp_path: Path) -> None:
    kept_loaders.keep(str(directory), "e", "r", LOADERS)
    asked = {"group": "no-such-group", "command": "status", "root": str(tmp_path)}
    answer = ask_guard.main({**asked, "model": str(directory)})
    assert answer["loaders"]["loaders"] == LOADERS
    assert ask_guard.main(asked)["loaders"] is None
