"""What this host says of its loaders, from the record that root wrote beside the weights."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muster.guard import config, loader_record
from muster.guard.config import Config

from .test_config import DATA, LOADING

GB = 10**9


@pytest.fixture
def record(tmp_path: Path) -> Path:
    (tmp_path / "rev").mkdir()
    for name in ("a.safetensors", "b.safetensors", "config.json"):
        (tmp_path / "rev" / name).touch()
    return tmp_path / "rev.loaders.json"


def configured(record: Path) -> Config:
    sizes = {"record": str(record), "mapped": 100 * GB, "whole": 200 * GB, "room": 8 * GB}
    return config.parse(json.dumps({**DATA, "loading": {**LOADING, **sizes}}))


def written(record: Path, **change: Any) -> Path:
    loaders = {
        "auto": {"rate": GB, "peak": 0},
        "auto-cached": {"rate": 4 * GB, "peak": 0},
        "instanttensor": {"rate": 8 * GB, "peak": 0},
    }
    device = record.with_name("rev").stat().st_dev
    record.write_text(
        json.dumps(
            {"engine": "0.32.0", "ranks": LOADING["ranks"], "device": device, "at": 1.8e9, "loaders": loaders, **change}
        )
    )
    return record


def test_the_seconds_of_each_loader_with_what_the_cache_holds(record: Path) -> None:
    told = configured(written(record))
    assert loader_record.loads(told) == "auto=100 instanttensor=25"
    assert loader_record.loads(told, 0.5) == "auto=62.5 instanttensor=25"


def test_without_a_measurement_that_counts_there_is_nothing(record: Path) -> None:
    told = configured(record)
    assert loader_record.loads(replace(told, loading=None)) == ""
    assert loader_record.loads(told) == "", "no record"
    for change in (
        {"engine": "0.31.0"},
        {"ranks": "1-1-1-0-1-0"},
        {"device": 1},
        {"loaders": []},
        {"more": "x" * loader_record.LIMIT},
    ):
        assert loader_record.loads(configured(written(record, **change))) == ""
    for text in ("", "[]", "{", "[" * 10_000, "\xff"):
        record.write_bytes(text.encode("latin-1"))
        assert loader_record.loads(told) == ""


def test_what_lies_in_the_records_place_is_not_followed(record: Path) -> None:
    record.symlink_to(written(record.with_name("real.json")))
    assert loader_record.loads(configured(record)) == ""
    record.unlink()
    os.mkfifo(record)
    assert loader_record.loads(configured(record)) == ""


def test_weights_that_are_gone_have_no_times(record: Path) -> None:
    told = configured(written(record))
    record.with_name("rev").rename(record.with_name("gone"))
    assert loader_record.loads(told) == ""
