"""Paths through another user's directory: links, FIFOs, second names and exchanged directories lead nowhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from muster.on_host import safe_paths, whole_files

Act = Callable[[str], object]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A directory that others may write to, beside a file and a directory that are not theirs."""
    place = tmp_path / "foreign"
    place.mkdir()
    place.chmod(0o777)
    (tmp_path / "own").write_text("own\n")
    (tmp_path / "own").chmod(0o600)
    (tmp_path / "owndir").mkdir()
    (tmp_path / "owndir/kept").write_text("kept\n")
    return place


ACTS: dict[str, Act] = {
    "read": lambda path: safe_paths.read_bounded(path, 100),
    "write": lambda path: os.close(safe_paths.open_below(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)),
    "hash": whole_files.sha256,
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "fifo", "directory", "link to a device"])
def test_what_is_no_regular_file_is_refused_at_once(foreign: Path, act: Act, kind: str) -> None:
    place = foreign / "x"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    else:
        targets = {"link to a file": "../own", "link to nothing": "../new", "link to a device": "/dev/zero"}
        place.symlink_to(targets[kind])
    with pytest.raises(OSError, match=r"symbolic link|FIFO|directory"):
        act(str(place))
    assert (foreign.parent / "own").read_text() == "own\n"
    assert not (foreign.parent / "new").exists()


def test_a_second_name_of_a_file_is_read_and_never_written(foreign: Path) -> None:
    os.link(foreign.parent / "own", foreign / "x")
    assert safe_paths.read_bounded(str(foreign / "x"), 100) == b"own\n"
    with pytest.raises(safe_paths.Unsafe, match="hard links"):
        safe_paths.open_below(str(foreign / "x"), os.O_RDWR | os.O_TRUNC)
    assert (foreign.parent / "own").read_text() == "own\n"
    whole_files.write_whole(str(foreign / "x"), b"new\n")
    assert ((foreign / "x").read_text(), (foreign.parent / "own").read_text()) == ("new\n", "own\n")


THROUGH: dict[str, Act] = {
    **ACTS,
    "write whole": lambda path: whole_files.write_whole(path, b""),
    "make": lambda path: safe_paths.make_directory(path + "/a/b"),
    "remove file": safe_paths.remove_file,
    "remove below": safe_paths.remove_below,
    "rename": lambda path: safe_paths.rename(path, path + "2"),
    "sync": whole_files.sync_directory,
}


@pytest.mark.parametrize("act", THROUGH.values(), ids=THROUGH)
def test_no_foreign_link_is_passed_on_the_way(foreign: Path, act: Act) -> None:
    (foreign / "way").symlink_to("../owndir")
    with pytest.raises(OSError, match="symbolic link"):
        act(str(foreign / "way/kept"))
    assert [path.name for path in (foreign.parent / "owndir").iterdir()] == ["kept"]
    assert (foreign.parent / "owndir/kept").read_text() == "kept\n"


def test_a_link_that_root_made_counts(foreign: Path) -> None:
    base = foreign.parent
    (base / "link").symlink_to("owndir")
    (base / "owndir/deep").symlink_to("../own")
    assert safe_paths.read_bounded(str(base / "link/kept"), 100) == b"kept\n"
    assert safe_paths.read_bounded(str(base / "link/deep"), 100) == b"own\n"
    safe_paths.make_directory(str(base / "link/a/b"), 0o750)
    assert stat.S_IMODE((base / "owndir/a/b").stat().st_mode) == 0o750
    (base / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels"):
        safe_paths.read_bounded(str(base / "loop"), 100)


def test_removal_stays_below_and_minds_no_depth(foreign: Path) -> None:
    deep = foreign / "tree"
    deep.mkdir()
    (deep / "out").symlink_to("../../owndir")
    handle = os.open(deep, os.O_RDONLY)
    for _ in range(3000):  # a path that no call takes whole
        os.mkdir("d", dir_fd=handle)
        below = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    safe_paths.remove_below(str(deep))
    assert not os.path.lexists(deep)
    assert (foreign.parent / "owndir/kept").exists()
    (foreign / "link").symlink_to("../owndir")
    safe_paths.remove_below(str(foreign / "link"))
    assert not os.path.lexists(foreign / "link")
    assert (foreign.parent / "owndir/kept").exists()
    safe_paths.remove_below(str(foreign / "never"))


def test_what_is_read_is_bounded(foreign: Path) -> None:
    (foreign / "big").write_bytes(bytes(101))
    with pytest.raises(OSError, match="larger than 100 bytes"):
        safe_paths.read_bounded(str(foreign / "big"), 100)


@pytest.mark.parametrize("text", ["[1]", '"x"', "{", "", "\udcff", "[" * 200_000])
def test_an_object_is_an_object_or_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert whole_files.read_object(str(tmp_path / "x")) == {}


def test_a_directory_is_private_when_nobody_else_may_write(foreign: Path) -> None:
    assert safe_paths.private(str(foreign.parent / "owndir"))
    assert not safe_paths.private(str(foreign))
    assert not safe_paths.private(str(foreign / "none"))
    (foreign / "link").symlink_to("../owndir")
    assert not safe_paths.private(str(foreign / "link"))


def test_what_others_may_write_to_is_replaced_by_a_directory_that_they_may_not(foreign: Path) -> None:
    mine, (kept, planted) = foreign.parent / "owndir", (foreign.parent / "owndir" / "kept", foreign.parent / "theirs")
    planted.mkdir()
    planted.chmod(0o777)
    for place in (kept, planted / "x"):
        place.write_text("here")
    safe_paths.make_private(str(mine))
    safe_paths.make_private(str(planted), 0o700)
    assert kept.read_text() == "here"
    assert list(planted.iterdir()) == []
    assert planted.stat().st_mode & 0o7777 == 0o700
