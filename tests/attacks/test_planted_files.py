"""What the engine's user plants in its own directories, against the programs that root runs over them; pure."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from muster.on_host import engine_stamps, install_engine, mutex, place_files, probe_group


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A directory that others may write to, beside a file that is not theirs."""
    (tmp_path / "own").write_text("own\n")
    (tmp_path / "own").chmod(0o600)
    place = tmp_path / "var/lib/muster/g"
    place.mkdir(parents=True)
    place.chmod(0o777)
    return place


@pytest.mark.parametrize(
    "text",
    ["[1]", "1", '{"held": [1]}', '{"held": {"a": 1}}', "{", "[" * 300_000, "\udcff", '{"held": "' + "x" * 70_000],
)
def test_a_hold_of_any_type_stops_no_deploy(tmp_path: Path, foreign: Path, text: str) -> None:
    (foreign / "held.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert probe_group.main({"group": "g", "root": str(tmp_path)})["held"] == ""


@pytest.mark.parametrize("kind", ["fifo", "zero", "own", "directory"])
def test_a_hold_that_is_no_file_costs_neither_time_nor_memory(tmp_path: Path, foreign: Path, kind: str) -> None:
    place = foreign / "held.json"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    else:
        place.symlink_to({"zero": "/dev/zero", "own": tmp_path / "own"}[kind])
    before = time.monotonic()
    assert probe_group.main({"group": "g", "root": str(tmp_path)})["held"] == ""
    assert time.monotonic() - before < 60


def test_a_lock_that_is_a_link_empties_nothing(tmp_path: Path, foreign: Path) -> None:
    (foreign / "r.lock").symlink_to(tmp_path / "own")
    with pytest.raises(OSError, match="symbolic link"), mutex.held(str(foreign / "r.lock"), "installs", minutes=0):
        pass
    assert (tmp_path / "own").read_text() == "own\n"


def test_files_are_staged_through_no_link(tmp_path: Path, foreign: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (foreign / "conf").symlink_to(tmp_path / "elsewhere")
    item = {
        "path": "/var/lib/muster/g/conf/x",
        "text": "x",
        "sha256": "",
        "mode": "644",
        "owner": "root",
        "group": "root",
    }
    for do in ("base", "stage"):
        with pytest.raises(OSError, match="symbolic link"):
            place_files.main({"do": do, "files": [item], "root": str(tmp_path)})
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_accepted_command_line_is_nobody_elses_to_note(tmp_path: Path) -> None:
    release = {"path": "/opt/r", "spec": "s"}
    place = Path(engine_stamps.stamp(str(tmp_path), "/opt/r", ["vllm"]))
    place.parent.mkdir(parents=True)
    place.write_text("planted")
    place.parent.chmod(0o777)
    assert engine_stamps.accepted(str(tmp_path), release, [["vllm"]]) == [False]
    engine_stamps.note(str(tmp_path), "/opt/r", ["vllm"])
    assert engine_stamps.accepted(str(tmp_path), release, [["vllm"]]) == [True]


def test_a_cache_that_others_may_write_to_is_not_installed_from(tmp_path: Path) -> None:
    cache = tmp_path / "var/cache/muster/uv"
    cache.mkdir(parents=True)
    (cache / "planted.whl").write_text("")
    cache.chmod(0o777)
    request = {"cache_dir": "/var/cache/muster/uv", "python_dir": "/opt/muster/python"}
    assert install_engine.environment(request, str(tmp_path))["UV_CACHE_DIR"] == str(cache)
    assert list(cache.iterdir()) == []
