"""A change's lock and record on a host: real files, real locks, real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.hosts import programs
from muster.on_host import change_record, place_files

CHANGE = {"id": "1", "group": "g", "who": "ann", "origin": "desk", "phase": "prepared", "before": "a", "after": "b"}
SILENCE = 60.0


class Holder:
    """A session that holds the lock, as the control machine opens it."""

    def __init__(
        self,
        root: Path,
        silence: float = SILENCE,
        change: dict[str, Any] | None = None,
        groups: tuple[str, ...] = ("g",),
        back: dict[str, Any] | None = None,
    ) -> None:
        request = {"change": change or CHANGE, "groups": groups, "silence": silence, "back": back, "root": str(root)}
        text = programs.bundle({"hold_change": request}, streams=True).encode()
        command = ["/bin/sh", "-c", programs.open_command(len(text))]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.child.stdin is not None
        self.child.stdin.write(text)
        self.child.stdin.flush()
        self.first = self.line()

    def line(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        answer: dict[str, Any] = json.loads(self.child.stdout.readline() or "null")
        return answer

    def ask(self, **message: Any) -> dict[str, Any]:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(message).encode() + b"\n")
        self.child.stdin.flush()
        return self.line()

    def end(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait(20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/muster/g").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def holder(root: Path) -> Iterator[Holder]:
    there = Holder(root)
    yield there
    there.child.kill()
    there.child.wait(20)


def test_one_holds_it_and_the_other_is_told_whose_it_is(root: Path, holder: Holder) -> None:
    assert holder.first["state"]["locked"] is False
    assert change_record.state("g", str(root))["holder"] == CHANGE
    second = Holder(root, change={**CHANGE, "id": "2", "who": "bob"})
    assert second.first == {"busy": CHANGE, "group": "g"}
    assert second.child.wait(20) == 0
    assert change_record.held("g", str(root)) == (True, CHANGE)


def test_a_change_of_several_groups_holds_all_of_their_locks_or_none(root: Path, holder: Holder) -> None:
    second = Holder(root, change={**CHANGE, "id": "2"}, groups=("f", "g"))
    assert second.first == {"busy": CHANGE, "group": "g"}
    assert second.child.wait(20) == 0
    assert change_record.held("f", str(root)) == (False, {})
    holder.end()
    third = Holder(root, change={**CHANGE, "id": "3"}, groups=("f", "g"))
    third.ask(do="phase", phase="stopping")
    for group in ("f", "g"):
        alive, shown = change_record.held(group, str(root))
        assert (alive, shown["id"], shown["group"]) == (True, "3", group)
        assert change_record.state(group, str(root))["record"]["phase"] == "stopping"
    third.ask(do="finish")
    assert change_record.state("f", str(root))["record"] == {}
    third.end()


@pytest.mark.parametrize("how", ["the session ends", "the process is killed"])
def test_the_lock_ends_with_its_holder(root: Path, holder: Holder, how: str) -> None:
    assert holder.ask(do="phase", phase="stopping") == {}
    if how == "the session ends":
        holder.end()
    else:
        os.kill(holder.child.pid, signal.SIGKILL)
        holder.child.wait(20)
    left = change_record.state("g", str(root))
    assert (left["locked"], left["holder"]) == (False, {})
    assert left["record"] == {**CHANGE, "phase": "stopping"}


def test_a_silent_control_machine_is_taken_for_gone(root: Path) -> None:
    holder = Holder(root, silence=0.5)
    assert holder.child.wait(20) == 0
    assert change_record.held("g", str(root)) == (False, {})


def test_nothing_is_on_disk_before_the_stop_nor_after_the_end(root: Path, holder: Holder) -> None:
    record = Path(change_record.record_path("g", str(root)))
    assert not record.exists()
    holder.ask(do="phase", phase="stopping")
    assert json.loads(record.read_text())["phase"] == "stopping"
    assert holder.ask(do="finish") == {}
    assert not record.exists()


def test_a_record_that_cannot_be_written_is_an_error_in_words(root: Path, holder: Holder) -> None:
    (root / "etc/muster/g").rmdir()
    (root / "etc/muster/g").write_text("in the way")
    assert "g" in holder.ask(do="phase", phase="stopping")["error"]


def test_a_step_is_refused_once_the_lock_is_lost(root: Path, holder: Holder) -> None:
    fence = {"group": "g", "change": "1"}
    change_record.require(fence, str(root))
    with pytest.raises(OSError, match="ann@desk holds it"):
        change_record.require({**fence, "change": "2"}, str(root))
    holder.end()
    with pytest.raises(OSError, match="nobody holds it"):
        place_files.commit({"files": [], "fence": fence}, str(root))
    change_record.require(None, str(root))


def test_a_change_that_is_turned_back_keeps_its_lock_and_has_another_way(root: Path) -> None:
    commit = {"files": [{"path": f"/etc/muster/g/{number}", "sha256": "0" * 64} for number in range(200)]}
    program = "#" * 200_000
    way = {"is_head": True, "units": [], "kept": "", "commit": commit}
    holder = Holder(root, back={"way": way, "program": program, "after": 300})
    for phase in ("stopping", "committing"):
        assert holder.ask(do="phase", phase=phase) == {}
    turned = {**CHANGE, "phase": "committing", "before": "b", "after": "a", "command": "rollback"}
    back = {"is_head": True, "units": ["muster-g.service"], "kept": "a", "commit": {"files": []}}
    assert holder.ask(do="turn", change=turned, way=back) == {}
    assert change_record.held("g", str(root)) == (True, turned)
    change_record.require({"group": "g", "change": "1"}, str(root))
    assert change_record.state("g", str(root))["record"] == turned
    kept = json.loads(Path(change_record.way_path("g", str(root))).read_text())
    assert kept == {**back, "after": 300}
    assert Path(change_record.program_path("g", str(root))).read_text() == program
    assert holder.ask(do="finish") == {}
    assert not Path(change_record.way_path("g", str(root))).exists()
    holder.end()


def test_a_removal_that_goes_on_is_not_taken_back_by_its_hosts(root: Path) -> None:
    way = {"is_head": True, "units": ["muster-g.service"], "kept": "", "commit": {"files": []}}
    removal = {**CHANGE, "command": "remove"}
    holder = Holder(root, change=removal, back={"way": way, "program": "#", "after": 300})
    assert holder.ask(do="phase", phase="stopping") == {}
    assert Path(change_record.way_path("g", str(root))).exists()
    assert holder.ask(do="phase", phase="committing") == {}
    assert not Path(change_record.way_path("g", str(root))).exists()
    assert change_record.state("g", str(root))["record"]["phase"] == "committing"
    holder.end()
