"""What a host does whose change was cut, alone or under the lock of the next run: real files, cut between any two."""

from __future__ import annotations

import grp
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import change_record, place_files, return_change
from muster.on_host.whole_files import text_sha256

USER = pwd.getpwuid(os.geteuid()).pw_name
GROUP = grp.getgrgid(os.getegid()).gr_name
UNIT, ENV, MANIFEST = "/etc/systemd/system/muster-g.service", "/etc/muster/g/vllm.env", "/etc/muster/g/plan.json"
NEW = {UNIT: "[Unit]\n#\n", ENV: "A=2\n", MANIFEST: json.dumps({"digest": "b"})}
OLD = {UNIT: "[Unit]\n", ENV: "A=1\n", MANIFEST: json.dumps({"digest": "a"}), "/etc/muster/g/gone": ""}
CHANGE = {"id": "1", "group": "g", "phase": "committing", "before": "a", "after": "b"}
FILES = [
    {"path": path, "text": text, "sha256": text_sha256(text), "mode": "644", "owner": USER, "group": GROUP}
    for path, text in NEW.items()
]
COMMIT = {"files": FILES, "remove": ["/etc/muster/g/gone"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host on which the new files wait, and nothing has been put in place."""
    (tmp_path / "run").mkdir()
    for path, text in OLD.items():
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    place_files.stage(COMMIT, str(tmp_path))
    return tmp_path


def arm(root: Path, *, is_head: bool = False, **more: Any) -> None:
    way = {"is_head": is_head, "units": ["muster-g.service"], "kept": "", "commit": COMMIT}
    return_change.arm("g", {"way": way, "program": "#", "after": 300}, str(root))
    change_record.write("g", {**CHANGE, **more}, str(root))


def attempt(root: Path, change: str = "1") -> str:
    return str(return_change.main({"group": "g", "change": change, "root": str(root)})["did"])


def now(root: Path) -> dict[str, str]:
    return {path: place.read_text() for path in OLD if (place := root / path.lstrip("/")).exists()}


def record(root: Path) -> dict[str, Any]:
    return dict(change_record.state("g", str(root))["record"])


@pytest.mark.parametrize(
    ("phase", "is_head", "exchanging", "head_carries", "does"),
    [
        ("", True, False, "", "nothing"),
        ("prepared", True, False, "", "nothing"),
        ("stopping", True, False, "", "start"),
        ("stopping", False, False, "b", "start"),
        ("committing", True, False, "", "forward"),
        ("committing", False, False, "", "follow"),
        ("committing", False, True, "", "forward"),
        ("committing", False, False, "b", "forward"),
        ("committing", False, False, "a", "follow"),
        ("committed", False, False, "", "start"),
        ("started", True, False, "", "nothing"),
    ],
)
def test_what_a_host_does_that_is_left_alone(
    phase: str, is_head: bool, exchanging: bool, head_carries: str, does: str
) -> None:
    decided = return_change.left_alone(
        phase, is_head=is_head, exchanging=exchanging, head_carries=head_carries, after="b"
    )
    assert decided == does


@pytest.mark.parametrize("done", range(len(FILES) + 1))
def test_an_exchange_goes_on_from_wherever_it_was_cut(root: Path, done: int) -> None:
    arm(root, exchanging="yes")
    for item in FILES[:done]:
        Path(place_files.staged(str(root), item)).rename(f"{root}{item['path']}")
    assert attempt(root) == "forward"
    assert now(root) == NEW
    assert (record(root)["phase"], record(root)["exchanging"]) == ("committed", "")
    assert record(root)["returned"]
    assert attempt(root) == "start"  # after another reboot


def test_a_member_whose_files_are_whole_starts_them_and_waits_for_its_head(root: Path) -> None:
    arm(root)
    assert [attempt(root), attempt(root)] == ["follow", "follow"]
    assert now(root) == OLD
    assert record(root)["phase"] == "committing"


def test_a_head_goes_forward_and_starts_what_is_in_place_where_the_new_files_are_gone(root: Path) -> None:
    arm(root, is_head=True)
    Path(place_files.staged(str(root), FILES[1])).unlink()
    assert attempt(root) == "start"
    assert now(root) == OLD


def test_a_host_that_has_begun_says_so_while_the_files_of_its_exchange_are_gone(root: Path) -> None:
    arm(root, exchanging="yes")
    Path(place_files.staged(str(root), FILES[1])).unlink()
    with pytest.raises(OSError, match=r"vllm\.env is not staged as planned"):
        attempt(root)
    assert record(root)["phase"] == "committing"


def test_an_exchange_that_the_next_run_cannot_end_stays_recorded_until_its_files_are_staged_again(root: Path) -> None:
    arm(root, exchanging="yes")
    Path(place_files.staged(str(root), FILES[1])).unlink()
    with pytest.raises(OSError, match=r"vllm\.env is not staged as planned"):
        return_change.settle("g", True, str(root))
    assert (record(root)["phase"], record(root)["exchanging"]) == ("committing", "yes")
    place_files.stage(COMMIT, str(root))
    assert attempt(root) == "forward"
    assert now(root) == NEW


def test_a_host_records_the_exchange_before_it_puts_the_first_file_in_place(root: Path) -> None:
    arm(root)
    fence = {"group": "g", "change": "1"}
    with change_record.locked("g", CHANGE, str(root)):
        place_files.commit({**COMMIT, "fence": fence}, str(root))
    assert record(root)["exchanging"] == "yes"
    change_record.exchange({"group": "g", "change": "2"}, str(root))  # somebody else's record stays as it is
    assert record(root) == {**CHANGE, "exchanging": "yes"}


@pytest.mark.parametrize(("forward", "phase", "files"), [(True, "committed", NEW), (False, "stopping", OLD)])
def test_the_next_run_ends_the_exchange_before_it_begins(
    root: Path, forward: bool, phase: str, files: dict[str, str]
) -> None:
    arm(root)
    return_change.settle("g", forward, str(root))
    assert now(root) == files
    assert record(root)["phase"] == phase
    return_change.settle("g", True, str(root))
    assert record(root)["phase"] == phase


def test_a_host_does_nothing_while_somebody_holds_the_lock_nor_after_another_change(root: Path) -> None:
    arm(root, is_head=True)
    with change_record.locked("g", CHANGE, str(root)):
        assert attempt(root) == "wait"
        assert attempt(root, "0") == "wait"
    assert now(root) == OLD
    assert attempt(root, "0") == "nothing"
    assert not Path(change_record.way_path("g", str(root))).exists()
