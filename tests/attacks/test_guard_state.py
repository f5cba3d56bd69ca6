"""The engine's user plants something where the guard keeps its state: guard and root act as if nothing were there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.guard import restart_policy
from muster.guard.bounded_file import FILE_LIMIT, read_bounded
from muster.guard.restart_policy import RestartRecord
from muster.guard.state_store import StateStore


def linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def written(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


RECORD = restart_policy.to_wire(RestartRecord(boot="b"))
PLANTED: dict[str, Callable[[Path], None]] = {
    "a list": written("[1]"),
    "a fifo": os.mkfifo,
    "an endless device": linked("/dev/zero"),
    "a link to a file of root's": linked("/etc/shadow"),
    "a folder": Path.mkdir,
    "depth": written("[" * 100_000),
    "depth in an object": written('{"held": ' + "[" * 100_000),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\xff") and None,
    "something huge": lambda path: (path.touch(), os.truncate(path, 2**40))[0],
    "a hold of another kind": written(json.dumps({**RECORD, "held": ["stopped"]})),
    "endless numbers": written(json.dumps({**RECORD, "streak": float("inf"), "aborts": [float("nan")]})),
    "a number beyond any": lambda path: path.write_text('{"resumed": 1' + "0" * 400 + "}") and None,
    "nested numbers": written(json.dumps({**RECORD, "aborts": [[1]], "restarts": "many"})),
    "a failure of another shape": written(json.dumps({**RECORD, "failures": [[]]})),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("file", ["memory.json", "held.json", "ended.json", "xids.json", "failures/1.json", "failures"])
def test_what_is_planted_is_as_if_nothing_were_there(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / "failures").mkdir()
    if file == "failures":
        (tmp_path / "failures").rmdir()
    if name == "a folder" and file == "failures":
        return
    PLANTED[name](tmp_path / file)
    store = StateStore(str(tmp_path), str(tmp_path))
    assert store.load_record() == RestartRecord()
    bundles = store.bundles(10**9)
    assert bundles == [] or isinstance(bundles[0], dict)
    assert store.load_resumed() is None
    assert store.take_ended() == ""
    store.save_record(RestartRecord(held="stopped"))
    store.lift_hold()


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(RECORD)),
        st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4),
    )
)
def test_any_record_is_one_or_a_value_error(change: dict[str, object]) -> None:
    try:
        record = restart_policy.from_wire({**RECORD, **change})
    except ValueError:
        return
    assert restart_policy.from_wire(restart_policy.to_wire(record)) == record


def test_a_file_may_be_as_large_as_its_bound(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * FILE_LIMIT)
    assert len(read_bounded(str(tmp_path / "f"))) == FILE_LIMIT
    with pytest.raises(OSError, match=f"{FILE_LIMIT} bytes"):
        read_bounded(str(tmp_path / "f"), FILE_LIMIT - 1)
