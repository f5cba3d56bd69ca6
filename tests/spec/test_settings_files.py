"""Where an inventory's settings are looked for, and what a run that missed some of them is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.spec import pins, settings_files
from muster.spec.settings_files import files_of, require_named_groups, require_read


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a directory like a clone: inventories/mine.py, group_data and config.py at the top."""
    top = tmp_path / "clone"
    for name in ("inventories/mine.py", "inventories/other.py", "group_data/all.py", "group_data/mine.py", "config.py"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("")
    (tmp_path / "elsewhere").mkdir()
    return top


def test_files_are_found_from_anywhere(clone: Path) -> None:
    for here in (clone, clone / "inventories", clone.parent / "elsewhere"):
        files = files_of(clone / "inventories/mine.py", here)
        assert files.group_data == (clone / "group_data",)
        assert files.config == clone / "config.py"
        assert files.read_for({"hosts", "mine"}) == (clone / "group_data/all.py", clone / "group_data/mine.py")
    assert files_of(Path("inventories/other.py"), clone).read_for({"hosts"}) == (clone / "group_data/all.py",)


def test_what_lies_beside_the_inventory_comes_last(clone: Path) -> None:
    (clone / "inventories/group_data").mkdir()
    (clone.parent / "elsewhere/group_data").mkdir()
    files = files_of(clone / "inventories/mine.py", clone.parent / "elsewhere")
    top = clone.parent
    assert files.group_data == (top / "elsewhere/group_data", clone / "group_data", clone / "inventories/group_data")


def test_the_nearest_group_data_above_counts(clone: Path) -> None:
    deep = clone / "inventories/site/rack"
    deep.mkdir(parents=True)
    (deep / "mine.py").write_text("")
    files = files_of(deep / "mine.py", clone.parent / "elsewhere")
    assert (files.group_data, files.config) == ((clone / "group_data",), clone / "config.py")


def test_what_anybody_may_have_put_above_is_not_read(clone: Path) -> None:
    clone.chmod(0o1777)
    files = files_of(clone / "inventories/mine.py", clone.parent / "elsewhere")
    assert (files.group_data, files.config) == ((), None)


def test_a_run_that_missed_settings_is_refused(clone: Path) -> None:
    files = files_of(clone / "inventories/mine.py", clone.parent / "elsewhere")
    with pytest.raises(Refusal, match=r"has not read \S*group_data and \S*config\.py") as refused:
        require_read(files, [clone.parent / "elsewhere/group_data"], None)
    assert f"cd {clone}," in refused.value.fix
    with pytest.raises(Refusal, match=r"has not read \S*config\.py"):
        require_read(files, [clone / "group_data"], None)
    require_read(files, [clone / "group_data"], clone / "config.py")


def test_a_config_behind_a_link_is_read_as_well(clone: Path) -> None:
    (clone / "config.py").rename(clone.parent / "own.py")
    (clone / "config.py").symlink_to(clone.parent / "own.py")
    require_read(files_of(clone / "inventories/mine.py", clone), [clone / "group_data"], clone / "config.py")


def test_a_file_that_nearly_names_a_group_is_refused(clone: Path) -> None:
    files = files_of(clone / "inventories/mine.py", clone)
    require_named_groups(files, {"hosts", "mine"})  # other inventories' files are none of its business
    (clone / "group_data/H-osts.py").write_text("")
    with pytest.raises(Refusal, match=r"H-osts\.py applies to no host") as refused:
        require_named_groups(files, {"hosts", "mine"})
    assert "rename it to hosts.py" in refused.value.fix


def test_a_pin_is_found_beside_the_settings(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = clone.parent / "elsewhere"
    monkeypatch.chdir(elsewhere)
    homes = settings_files.files_of(clone / "inventories/mine.py", elsewhere).homes
    assert pins.path_in_use("mine", homes=homes) is None
    (clone / "pins").mkdir()
    (clone / "pins/mine.json").write_text("{}")
    assert pins.path_in_use("mine", homes=homes) == clone / "pins/mine.json"


def test_the_inventorys_own_directory_takes_precedence_from_everywhere(tmp_path: Path) -> None:
    beside = tmp_path / "cluster"
    beside.mkdir()
    for here in (tmp_path, beside, Path("/")):
        assert settings_files.files_of(beside / "mine.py", here).homes[-2:] == (tmp_path, beside)
