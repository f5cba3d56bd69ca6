"""Files reach a host whole, with mode and owner, or not at all."""

from __future__ import annotations

import errno
import grp
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import place_files, whole_files
from muster.on_host.whole_files import text_sha256

USER = pwd.getpwuid(os.geteuid()).pw_name
GROUP = grp.getgrgid(os.getegid()).gr_name


def item(path: str, text: str, mode: str = "644", owner: str = USER) -> dict[str, str]:
    return {"path": path, "text": text, "sha256": text_sha256(text), "mode": mode, "owner": owner, "group": GROUP}


def do(root: Path, part: str, files: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    return place_files.main({"do": part, "files": files, "root": str(root), **more})


def every_file(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_staged_files_are_seen_by_nobody_until_they_are_committed(tmp_path: Path) -> None:
    old = tmp_path / "etc/muster/g/a.env"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    files = [item("/etc/muster/g/a.env", "new"), item("/etc/systemd/system/u.service", "[Unit]\n", "600")]
    assert do(tmp_path, "stage", files)["changed"] == [each["path"] for each in files]
    assert old.read_text() == "old"
    assert not (tmp_path / "etc/systemd/system/u.service").exists()
    do(tmp_path, "commit", files)
    assert every_file(tmp_path) == {"etc/muster/g/a.env": "new", "etc/systemd/system/u.service": "[Unit]\n"}
    assert (tmp_path / "etc/systemd/system/u.service").stat().st_mode & 0o7777 == 0o600


def test_a_full_disk_leaves_nothing_behind_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = whole_files.write_synced

    def full(path: str, *rest: Any) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        written.append(path)
        real(path, *rest)

    monkeypatch.setattr(whole_files, "write_synced", full)
    with pytest.raises(OSError, match=r"could not write /etc/b: .*No space left.*nothing on this host was changed"):
        do(tmp_path, "stage", [item("/etc/a", "1"), item("/etc/b", "2")])
    assert every_file(tmp_path) == {}


def test_the_file_that_cannot_be_staged_is_the_one_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of a directory")
    with pytest.raises(OSError, match="could not write /file/b: "):
        do(tmp_path, "stage", [item("/etc/a", "1"), item("/file/b", "2")])
    assert list(every_file(tmp_path)) == ["file"]


def test_nothing_is_renamed_unless_everything_is_staged(tmp_path: Path) -> None:
    files = [item("/etc/a", "1"), item("/etc/b", "2")]
    do(tmp_path, "stage", files)
    (tmp_path / "etc/.b.muster-new").write_text("half")
    with pytest.raises(OSError, match=r"/etc/b is not staged as planned; nothing on this host was changed"):
        do(tmp_path, "commit", files)
    assert not (tmp_path / "etc/a").exists()


def test_what_no_plan_names_is_removed_with_the_commit(tmp_path: Path) -> None:
    stale = tmp_path / "etc/muster/g/old.env"
    stale.parent.mkdir(parents=True)
    stale.write_text("x")
    told = do(tmp_path, "commit", [], remove=["/etc/muster/g/old.env", "/etc/muster/g/never-there"])
    assert told["changed"] == ["/etc/muster/g/old.env"]
    assert not stale.exists()


def test_an_owner_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nobody-has-this-name"):
        do(tmp_path, "stage", [item("/etc/a", "1", owner="nobody-has-this-name")])
    assert every_file(tmp_path) == {}


def test_base_files_are_in_place_at_once(tmp_path: Path) -> None:
    do(tmp_path, "base", [item("/etc/sysctl.d/90-muster.conf", "vm.x = 1\n")])
    there = every_file(tmp_path)
    assert there.pop("var/lib/muster/before.json")
    assert there == {"etc/sysctl.d/90-muster.conf": "vm.x = 1\n"}


def test_a_secret_is_readable_by_nobody_else_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    real = os.write

    def watching(handle: int, data: Any) -> int:
        modes.append(os.fstat(handle).st_mode & 0o777)
        return real(handle, data)

    monkeypatch.setattr(os, "write", watching)
    do(tmp_path, "stage", [item("/etc/muster/g/key", "sesame", "600")])
    assert modes == [0o600]
    assert (tmp_path / "etc/muster/g/.key.muster-new").stat().st_mode & 0o777 == 0o600
