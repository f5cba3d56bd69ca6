"""What a host was before the first deploy comes back, unless somebody has changed it since."""

from __future__ import annotations

from pathlib import Path

from muster.on_host import host_before, places
from tests.on_host.test_remove_muster import run, write

TEXT = "# Written by muster.\nnet.core.somaxconn = 4096\nvm.max_map_count = 1048576\n"


def test_kernel_settings_come_back_unless_somebody_has_set_them_since(tmp_path: Path) -> None:
    item = {"path": places.SYSCTL, "text": TEXT}
    one = write(tmp_path, "/proc/sys/net/core/somaxconn", "128\n")
    two = write(tmp_path, "/proc/sys/vm/max_map_count", "65530\n")
    host_before.keep(item, str(tmp_path))
    write(tmp_path, places.SYSCTL, TEXT)
    one.write_text("4096\n")
    two.write_text("262144\n")
    host_before.keep(item, str(tmp_path))  # a second deploy
    assert host_before.restore_settings(str(tmp_path)) == []
    assert (one.read_text(), two.read_text()) == ("128\n", "262144\n")


def test_a_value_that_was_the_same_before_needs_no_word(tmp_path: Path) -> None:
    write(tmp_path, "/proc/sys/net/core/somaxconn", "4096\n")
    host_before.keep({"path": places.SYSCTL, "text": TEXT}, str(tmp_path))
    write(tmp_path, places.SYSCTL, TEXT)
    assert host_before.restore_settings(str(tmp_path)) == []


def test_what_they_were_and_nobody_knows_is_said(tmp_path: Path) -> None:
    write(tmp_path, places.SYSCTL, TEXT)
    write(tmp_path, "/proc/sys/net/core/somaxconn", "4096\n")
    notes = host_before.restore_settings(str(tmp_path))
    assert notes == ["net.core.somaxconn stays 4096 until the next boot: what it was before is not known here"]


def test_directories_that_were_not_there_go_when_they_are_empty(tmp_path: Path) -> None:
    (tmp_path / "etc/tmpfiles.d").mkdir(parents=True)
    for path in (places.SYSUSERS, places.tmpfiles("g"), places.SYSCTL):
        host_before.keep({"path": path, "text": ""}, str(tmp_path))
        write(tmp_path, path)
    write(tmp_path, "/etc/sysctl.d/99-mine.conf")
    assert host_before.made_directories(str(tmp_path)) == ["/etc/sysusers.d", "/etc/sysctl.d"]
    run(tmp_path, None)
    there = {path.name for path in (tmp_path / "etc").iterdir()}
    assert there == {"tmpfiles.d", "sysctl.d"}
