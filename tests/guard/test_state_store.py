"""The files kept between two lives of a guard, and the credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.guard.messages import Failure
from muster.guard.restart_policy import RestartRecord
from muster.guard.state_store import BUNDLE_LIMIT, BUNDLES, StateStore


def test_the_store_keeps_holds_through_a_reboot_and_the_record_through_a_restart(tmp_path: Path) -> None:
    run, state = tmp_path / "run", tmp_path / "state"
    run.mkdir()
    state.mkdir()
    store = StateStore(str(run), str(state))
    assert store.load_record() == RestartRecord()
    record = RestartRecord(boot="b", aborts=(1.0, 2.5), streak=2, held="failed", failures=(Failure("a", "r"),))
    store.save_record(record)
    assert store.load_record() == record
    (run / "memory.json").unlink()
    assert store.load_record() == record
    store.save_record(RestartRecord(boot="b"))
    assert not (state / "held.json").exists()


def test_the_seconds_of_the_last_start_are_kept_and_a_planted_file_is_none(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path), str(tmp_path))
    assert store.load_start() is None
    store.save_start(731.46)
    assert store.load_start() == 731.5
    for text in ('{"seconds": -1}', '{"seconds": "9"}', '{"seconds": true}', "[]", "{"):
        (tmp_path / "start.json").write_text(text)
        assert store.load_start() is None


def test_a_hold_is_kept_before_anything_else_or_said_not_to_be(tmp_path: Path) -> None:
    run, state = tmp_path / "run", tmp_path / "state"
    run.mkdir()
    store, stopped = StateStore(str(run), str(state)), RestartRecord(boot="b", held="stopped")
    assert store.keep_hold(stopped) == f"{state}/held.json: No such file or directory"
    assert not store.is_held()
    state.mkdir()
    assert store.keep_hold(stopped) == ""
    assert store.is_held()
    assert store.load_record() == stopped
    assert [store.keep_hold(RestartRecord()), store.keep_hold(RestartRecord())] == ["", ""]
    assert not store.is_held()
    (state / "held.json").mkdir()
    assert store.keep_hold(RestartRecord()).startswith(f"{state}/held.json: ")


def test_a_record_that_cannot_be_written_leaves_no_older_one(tmp_path: Path) -> None:
    """On a full /run, the record of a running group would undo the stop that follows."""
    store, stopped = StateStore(str(tmp_path), str(tmp_path)), RestartRecord(boot="b", held="stopped")
    store.save_record(RestartRecord(boot="b", running="g"))
    (tmp_path / "memory.json.new").mkdir()
    store.save_record(stopped)
    assert store.load_record() == stopped


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"boot": 1}', "null", '{"held": "maybe"}'])
def test_an_unreadable_record_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.json").write_text(text)
    assert StateStore(str(tmp_path), str(tmp_path)).load_record() == RestartRecord()


def test_how_the_last_guard_ended_is_returned_once(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path), str(tmp_path))
    store.save_ended("watchdog killed KILL")
    assert [store.take_ended(), store.take_ended()] == ["watchdog killed KILL", ""]


def test_bundles_are_bounded_in_number_and_size(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path), str(tmp_path))
    for number in range(BUNDLES + 5):
        store.save_bundle(f"{number:03}", {"number": number, "processes": [{"lines": "x" * 2 * BUNDLE_LIMIT}]})
    kept = store.bundles(100)
    assert [each["number"] for each in kept] == list(range(BUNDLES + 4, 4, -1))
    sizes = [path.stat().st_size for path in (tmp_path / "failures").iterdir()]
    assert max(sizes) <= BUNDLE_LIMIT
    assert store.bundles(1) == kept[:1]
