"""What keeps a unit from starting, told from its files before anything is stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from muster.on_host import startable

UNIT = """\
[Service]
ExecStart=/usr/bin/python3 -I /opt/muster/guard/1 --config /etc/muster/g/guard.json -- vllm serve m
StandardInput=file:/etc/muster/g/guard-key
Environment=MUSTER_GROUP=g MUSTER_DIGEST=new
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, text in {
        "etc/systemd/system/muster-g.service": UNIT,
        "etc/muster/g/guard.json": json.dumps({"digest": "new", "checks": {"paths": ["/opt/e/bin/vllm"]}}),
        "etc/muster/g/guard-key": "k",
        "etc/muster/g/plan.json": "{}",
        "opt/muster/guard/1/__main__.py": "",
        "opt/e/bin/vllm": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def lacks(root: Path) -> list[str]:
    told: list[str] = startable.state(str(root), "g", ["muster-g.service"])["lacks"]
    return told


def test_a_group_that_can_start_lacks_nothing_and_tells_its_plans(root: Path) -> None:
    assert startable.state(str(root), "g", ["muster-g.service"]) == {
        "lacks": [],
        "plans": {"/etc/systemd/system/muster-g.service": "new", "/etc/muster/g/guard.json": "new"},
    }


@pytest.mark.parametrize(
    "path",
    ["/etc/muster/g/guard-key", "/etc/muster/g/plan.json", "/opt/muster/guard/1/__main__.py", "/opt/e/bin/vllm"],
)
def test_what_a_unit_starts_from_is_missed_by_name(root: Path, path: str) -> None:
    (root / path.lstrip("/")).unlink()
    assert lacks(root) == [f"{path} is not there"]


def test_half_a_file_and_a_masked_unit(root: Path) -> None:
    (root / "etc/muster/g/guard.json").write_text('{"digest": "ne')
    assert lacks(root) == ["/etc/muster/g/guard.json is not whole"]
    unit = root / "etc/systemd/system/muster-g.service"
    unit.unlink()
    unit.symlink_to("/dev/null")
    assert lacks(root) == [f"muster-g.service {startable.MASKED}"]
    assert startable.state(str(root), "g", [])["lacks"] == ["no unit of group g is there"]
