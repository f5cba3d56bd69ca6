"""Kernel limits that are too low for many hosts are raised, with a line that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.sandbox import limits


def test_a_low_limit_is_raised_and_said(tmp_path: Path) -> None:
    place, lines = tmp_path / "max_user_instances", list[str]()
    place.write_text("128\n")
    limits.ensure(16, lines.append, place)
    assert int(place.read_text()) == limits.instances_for(16) == 384
    assert lines == ["fs.inotify.max_user_instances raised from 128 to 384, for 16 hosts; until the next reboot"]


def test_a_limit_that_is_high_enough_stays(tmp_path: Path) -> None:
    place, lines = tmp_path / "max_user_instances", list[str]()
    place.write_text("8192\n")
    limits.ensure(16, lines.append, place)
    assert (place.read_text(), lines) == ("8192\n", [])


def test_a_limit_that_cannot_be_raised_is_refused_with_the_command(tmp_path: Path) -> None:
    class Fixed(type(tmp_path)):  # type: ignore[misc]
        def write_text(self, *_: object, **__: object) -> int:
            raise OSError(30, "Read-only file system")

    place = Fixed(tmp_path / "max_user_instances")
    tmp_path.joinpath("max_user_instances").write_text("128\n")
    with pytest.raises(Refusal, match=r"sysctl fs\.inotify\.max_user_instances=384"):
        limits.ensure(16, print, place)
