"""The ledger: entries survive a round trip, broken files are listed, a baseline goes by any of its names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.bench import ledger
from muster.errors import Refusal
from tests.bench.sample import entry


def test_what_is_written_is_read(tmp_path: Path) -> None:
    kept = entry(engine={"cache_tokens": [1, 2]}, raw={"completed": 8}, problems=("one failed",))
    ledger.write(tmp_path, kept)
    assert ledger.read(tmp_path) == ([kept], [])


def test_entries_are_read_oldest_first_and_broken_files_are_named(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        ledger.write(tmp_path, entry(number))
    (tmp_path / "half.json").write_text('{"schema": 1, "id"', encoding="utf-8")
    (tmp_path / "other.json").write_text("[]", encoding="utf-8")
    entries, broken = ledger.read(tmp_path)
    assert [kept.at for kept in entries] == sorted(kept.at for kept in entries)
    assert [line.split(":")[0].rsplit("/", 1)[1] for line in broken] == ["half.json", "other.json"]


@pytest.mark.parametrize("word", ["20260101T", "0123456", "vllm-0.33.0"])
def test_a_baseline_is_found_by_session_digest_or_release(word: str) -> None:
    other = entry(2, session="20260202T000000Z-bbbb", digest="ffff", release="vllm-0.34.0")
    assert ledger.baseline(word, [entry(1), other]) == [entry(1)]


def test_an_unknown_baseline_names_the_sessions_there_are() -> None:
    with pytest.raises(Refusal, match="20260101T000000Z-aaaa"):
        ledger.baseline("nope", [entry()])


def test_a_baseline_may_be_a_file(tmp_path: Path) -> None:
    path = ledger.write(tmp_path, entry())
    assert ledger.baseline(str(path), []) == [entry()]


ANY = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)


def test_an_engine_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ValueError, match="engine"):
        ledger.parse({"schema": 1, **json.loads(json.dumps(vars(entry()))), "engine": [1]})


KEYS = ("id", "at", "prompts", "figures", "load", "engine", "problems", "schema", "kind")


@given(st.dictionaries(st.sampled_from(KEYS), ANY))
def test_any_other_value_is_read_or_refused(changes: dict[str, Any]) -> None:
    raw = {"schema": 1, **json.loads(json.dumps(vars(entry())))} | changes
    try:
        parsed = ledger.parse(raw)
    except ValueError:
        return
    assert isinstance(parsed.load_key, str)
    assert isinstance(parsed.engine, Mapping)
