"""The probe tells what is there, and what it cannot tell it says."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import engine_stamps, probe_group
from muster.on_host.whole_files import text_sha256

SHOWN = """\
Id=muster-g-vllm.service
LoadState=loaded
ActiveState=active
SubState=running
Result=success
MainPID={pid}
NRestarts=2
UnitFileState=enabled
InvocationID=abc
NeedDaemonReload=no

Id=muster-g-ray.service
LoadState=not-found
ActiveState=inactive
SubState=dead
Result=success
MainPID=0
NRestarts=0
UnitFileState=
InvocationID=
NeedDaemonReload=no
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of tools that stand before the machine's own."""
    there = tmp_path / "tools"
    there.mkdir()
    monkeypatch.setenv("PATH", f"{there}:{os.environ['PATH']}")
    return there


def tool(tools: Path, name: str, script: str) -> None:
    (tools / name).write_text(f"#!/bin/sh\n{script}\n")
    (tools / name).chmod(0o755)


def ask(root: Path, **request: Any) -> dict[str, Any]:
    return probe_group.main({"root": str(root), **request})


def test_a_file_is_described_by_digest_mode_and_owners(tmp_path: Path) -> None:
    file = tmp_path / "etc/muster/g/vllm.env"
    file.parent.mkdir(parents=True)
    file.write_text("A=1\n")
    file.chmod(0o640)
    told = ask(tmp_path, files={"/etc/muster/g/vllm.env": "0", "/etc/nothing": "0"}, group="g")["files"]
    found = told["/etc/muster/g/vllm.env"]
    assert (found["kind"], found["sha256"], found["mode"]) == ("file", text_sha256("A=1\n"), "640")
    assert told["/etc/nothing"] == {"kind": "missing"}


def test_a_link_or_a_directory_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/etc/passwd")
    (tmp_path / "b").mkdir()
    told = ask(tmp_path, files={"/a": "0", "/b": "0"})["files"]
    assert told == {"/a": {"kind": "link"}, "/b": {"kind": "other"}}


def test_text_comes_back_only_when_asked_for_and_readable_by_all(tmp_path: Path) -> None:
    for name, mode in (("open", 0o644), ("closed", 0o600)):
        (tmp_path / name).write_text("text")
        (tmp_path / name).chmod(mode)
    files = {"/open": "0", "/closed": "0"}
    assert ask(tmp_path, files=files, texts=True)["files"]["/open"]["text"] == "text"
    assert "text" not in ask(tmp_path, files=files, texts=True)["files"]["/closed"]
    assert "text" not in ask(tmp_path, files=files)["files"]["/open"]


def test_files_of_the_group_that_no_plan_names_are_stale(tmp_path: Path) -> None:
    for path in ("etc/muster/g/old.env", "etc/muster/g/kept.env", "etc/systemd/system/muster-g-ray.service"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "etc/systemd/system/muster-g2-vllm.service").write_text("another group's")
    (tmp_path / "etc/systemd/system/.muster-g2.service.muster-new").write_text("another group's")
    units = [f"etc/systemd/system/.muster-g{part}.service.muster-new" for part in ("", "-vllm")]
    for left in ("etc/muster/g/.kept.env.muster-new", *units):
        (tmp_path / left).write_text("staged by a run that was cut")
    told = ask(tmp_path, group="g", files={"/etc/muster/g/kept.env": "0"})
    assert told["stale"] == [
        "/etc/muster/g/.kept.env.muster-new",
        "/etc/muster/g/old.env",
        "/etc/systemd/system/.muster-g-vllm.service.muster-new",
        "/etc/systemd/system/.muster-g.service.muster-new",
        "/etc/systemd/system/muster-g-ray.service",
    ]


def test_what_an_earlier_version_wrote_for_all_groups_is_stale(tmp_path: Path) -> None:
    (tmp_path / "etc/tmpfiles.d").mkdir(parents=True)
    for name in ("muster.conf", "muster-g.conf", "muster-h.conf"):
        (tmp_path / "etc/tmpfiles.d" / name).write_text("")
    assert ask(tmp_path, group="g", files={"/etc/tmpfiles.d/muster-g.conf": "0"})["stale"] == [
        "/etc/tmpfiles.d/muster.conf"
    ]


def test_other_groups_say_what_they_use(tmp_path: Path) -> None:
    for group in ("g", "other"):
        manifest = tmp_path / f"etc/muster/{group}/plan.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(json.dumps({"ports": [8000]}))
    (tmp_path / "etc/muster/broken").mkdir()
    (tmp_path / "etc/muster/broken/plan.json").write_text("{")
    assert ask(tmp_path, group="g")["groups"] == {"other": {"ports": [8000]}}


@pytest.mark.parametrize(("command", "counts"), [("deploy", True), ("remove", False), ("", False)])
def test_a_group_whose_change_was_cut_counts_by_the_plan_that_waits(tmp_path: Path, command: str, counts: bool) -> None:
    place = tmp_path / "etc/muster/other"
    place.mkdir(parents=True)
    (place / ".plan.json.muster-new").write_text(json.dumps({"gpus": ["0"]}))
    if command:
        (place / "change.json").write_text(json.dumps({"command": command}))
    assert ask(tmp_path, group="g")["groups"] == ({"other": {"gpus": ["0"]}} if counts else {})
    assert ask(tmp_path, group="other")["groups"] == {}


def test_units_tell_the_digest_they_run_with_not_the_one_on_disk(tmp_path: Path, tools: Path) -> None:
    child = subprocess.Popen(["sleep", "60"], env={"MUSTER_DIGEST": "d1g35t", "PATH": os.environ["PATH"]})
    try:
        tool(tools, "systemctl", f"cat <<'END'\n{SHOWN.format(pid=child.pid)}END")
        told = ask(tmp_path, units=["muster-g-vllm.service", "muster-g-ray.service"])["units"]
    finally:
        child.kill()
        child.wait()
    running, absent = told["muster-g-vllm.service"], told["muster-g-ray.service"]
    assert (running["active"], running["digest"], running["enabled"], running["restarts"]) == (
        "active",
        "d1g35t",
        True,
        2,
    )
    assert (absent["load"], absent["active"], absent["digest"], absent["enabled"]) == (
        "not-found",
        "inactive",
        None,
        False,
    )


def test_a_host_without_systemd_says_so_and_the_rest_still_comes(tmp_path: Path, tools: Path) -> None:
    tool(tools, "systemctl", "echo System has not been booted with systemd; exit 1")
    told = ask(tmp_path, units=["a.service"])
    assert "not been booted with systemd" in told["units"]["error"]
    assert told["python"]


def test_a_release_is_whole_only_with_its_own_note(tmp_path: Path) -> None:
    path = tmp_path / "opt/muster/engines/r"
    wanted = {"path": "/opt/muster/engines/r", "spec": "s1"}
    assert ask(tmp_path, release=wanted)["release"] == {"exists": False, "complete": False, "runs": False}
    (path / "bin").mkdir(parents=True)
    assert ask(tmp_path, release=wanted)["release"] == {"exists": True, "complete": False, "runs": False}
    (path / engine_stamps.COMPLETE).write_text(json.dumps({"spec": "s1"}))
    assert ask(tmp_path, release=wanted)["release"]["complete"]
    assert not ask(tmp_path, release={**wanted, "spec": "s2"})["release"]["complete"]


def test_a_command_line_counts_as_taken_by_the_very_engine_that_took_it(tmp_path: Path) -> None:
    vllm = tmp_path / "opt/e/bin/vllm"
    vllm.parent.mkdir(parents=True)
    vllm.write_text("one")
    argv = ["vllm", "serve", "m"]
    stamp = Path(engine_stamps.stamp(str(tmp_path), "/opt/e", argv))
    stamp.parent.mkdir(parents=True)
    stamp.touch()
    request = {"release": {"path": "/opt/e", "spec": "s"}, "argvs": [argv, [*argv, "--x"]]}
    assert ask(tmp_path, **request)["accepted"] == [True, False]
    vllm.write_text("another version")
    assert ask(tmp_path, **request)["accepted"] == [False, False]


def test_the_members_that_the_guard_knows_are_told(tmp_path: Path) -> None:
    file = tmp_path / "etc/muster/g/guard.json"
    assert ask(tmp_path, group="g")["members"] == {}
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"members": [{"host": "n0", "address": "10.0.0.1"}, {"host": 7}, "n1"]}))
    assert ask(tmp_path, group="g")["members"] == {"n0": "10.0.0.1"}
    file.write_text(json.dumps({"members": 5}))
    assert ask(tmp_path, group="g")["members"] == {}
