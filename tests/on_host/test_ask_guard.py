"""The program that asks a host's guard: its command lines, and its words when there is none."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import ask_guard, change_record

# Prints its own arguments as the guard's `ctl` prints its answer.
CTL = """\
import json, sys
print(json.dumps({"argv": sys.argv[1:]}))
"""
SYSTEMCTL = """\
#!/bin/sh
printf 'Id=muster-g.service\\nActiveState=%s\\nSubState=running\\n' "$STATE"
printf 'NRestarts=3\\nActiveEnterTimestamp=Sun 2026-11-22\\n'
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's files: a unit whose guard is `CTL`, and a systemctl that says what STATE says."""
    units, tools = tmp_path / "etc/systemd/system", tmp_path / "bin"
    units.mkdir(parents=True)
    tools.mkdir()
    (tmp_path / "ctl.py").write_text(CTL)
    start = f"ExecStart={sys.executable} -I {tmp_path}/ctl.py --config x -- vllm serve m\n"
    (units / "muster-g.service").write_text("[Service]\n" + start)
    (tools / "systemctl").write_text(SYSTEMCTL)
    (tools / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("STATE", "active")
    return tmp_path


def asked(root: Path, verb: str, **more: Any) -> dict[str, Any]:
    return ask_guard.main({"group": "g", "command": verb, "root": str(root), **more})


def test_a_resume_dates_the_repair(root: Path) -> None:
    marker = root / "etc/muster/repaired"
    asked(root, "resume")
    assert not marker.exists()
    marker.parent.mkdir()
    asked(root, "status")
    assert not marker.exists()
    asked(root, "resume")
    assert time.time() - marker.stat().st_mtime < 60


@pytest.mark.parametrize(
    ("verb", "more", "words"),
    [
        ("status", {}, ["status"]),
        ("logs", {"count": 10}, ["logs", "--count", "10"]),
        ("stop", {"wait": 5}, ["stop", "--wait", "5"]),
        ("restart", {"wait": 5, "since": "ab"}, ["restart", "--wait", "5", "--since", "ab"]),
        ("resume", {}, ["resume"]),
    ],
)
def test_every_verb_is_the_guards_own(root: Path, verb: str, more: dict[str, Any], words: list[str]) -> None:
    told = asked(root, verb, **more)
    assert told["answer"]["argv"] == ["ctl", "--config", f"{root}/etc/muster/g/guard.json", *words]
    assert told["unit"] == {"active": "active", "sub": "running", "restarts": 3, "since": "Sun 2026-11-22"}


def test_who_gives_a_command_is_said_and_a_guard_of_an_earlier_version_stops_all_the_same(root: Path) -> None:
    assert asked(root, "stop", by="ann@desk")["answer"]["argv"][-2:] == ["--by", "ann@desk"]
    usage = """if "--by" in sys.argv: sys.exit(print(json.dumps({"error": "usage: ctl --config FILE stop"})) or 1)\n"""
    (root / "ctl.py").write_text(CTL.replace("print(", usage + "print(", 1))
    assert asked(root, "stop", by="ann@desk")["answer"]["argv"][-1] == "stop"


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_what_a_stopped_unit_would_be_held_by_is_lifted(
    root: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE", state)
    assert asked(root, "resume")["answer"]["argv"][-1] == "release"
    assert asked(root, "status")["answer"]["argv"][-1] == "status"


def test_no_unit_and_plain_units_are_said_in_words(root: Path) -> None:
    unit = root / "etc/systemd/system/muster-g.service"
    unit.write_text("ExecStart=/opt/muster/engines/x/bin/vllm serve m\n")
    with pytest.raises(OSError, match=r"^muster-g\.service runs no guard \(supervisor = systemd\)$"):
        asked(root, "stop")
    assert asked(root, "status")["answer"] == {"error": "muster-g.service runs no guard (supervisor = systemd)"}
    unit.unlink()
    with pytest.raises(OSError, match=r"^there is no muster-g\.service on this host; run the recipe's deploy$"):
        asked(root, "stop")


def test_a_host_without_a_guard_tells_of_a_change_that_was_cut(root: Path) -> None:
    change_record.write("g", {"id": "1", "phase": "committing"}, str(root))
    assert asked(root, "status")["change"]["record"] == {"id": "1", "phase": "committing"}


def test_a_masked_unit_is_called_masked(root: Path) -> None:
    unit = root / "etc/systemd/system/muster-g.service"
    unit.unlink()
    unit.symlink_to("/dev/null")
    with pytest.raises(OSError, match=r"muster-g\.service is masked"):
        asked(root, "stop")
    assert "muster-g.service is masked" in asked(root, "status")["answer"]["error"]


def test_a_stop_of_a_stopped_unit_holds_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "stop" in asked(root, "stop")["answer"]["argv"]
    assert asked(root, "stop", absent=["a", "b"])["answer"]["argv"][-2:] == ["--absent", "a,b"]
    monkeypatch.setenv("STATE", "inactive")
    assert "hold" in asked(root, "stop")["answer"]["argv"]


def test_a_guard_program_that_is_broken_is_quoted(root: Path) -> None:
    (root / "ctl.py").write_text("raise SystemExit('cannot be')")
    assert asked(root, "status")["answer"] == {"error": "cannot be"}


def test_daemons_that_keep_weights_have_a_guard_of_their_own(root: Path) -> None:
    assert "weights" not in asked(root, "status")
    config = root / "etc/muster/g/weights.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    assert "there is no muster-g-weights.service" in asked(root, "status")["weights"]["error"]
    units = root / "etc/systemd/system"
    (units / "muster-g-weights.service").write_text((units / "muster-g.service").read_text())
    assert asked(root, "status")["weights"] == {"argv": ["ctl", "--config", str(config), "status"]}
    assert "weights" not in asked(root, "logs")
