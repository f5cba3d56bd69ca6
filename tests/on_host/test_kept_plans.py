"""Verified plans on a host: kept whole by root alone, the newest five."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muster.on_host import kept_plans, probe_group
from muster.on_host.whole_files import text_sha256

UNIT = "/etc/systemd/system/muster-g.service"


def do(root: Path, what: str, group: str = "g", **more: Any) -> dict[str, Any]:
    return kept_plans.main({"do": what, "group": group, "root": str(root), **more})


def keep(root: Path, number: int, text: str = "[Unit]\n", digest: str = "") -> dict[str, Any]:
    place = root / UNIT.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    files = {UNIT: {"sha256": text_sha256(text), "mode": "644", "owner": "root", "group": "root"}}
    plan = {"digest": digest or f"{number:016x}", "number": number, "release": {"id": "r", "path": f"/r{number}"}}
    return do(root, "keep", plan={**plan, "files": files, "settings": {}, "verify": {"processes": []}})


def test_the_newest_five_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    for number in range(1, 8):
        answer = keep(tmp_path, number, f"# {number}\n")
    assert [int(digest, 16) for digest in answer["kept"]] == [7, 6, 5, 4, 3]
    assert answer["removed"] == [f"{2:016x}"]
    place = tmp_path / "etc/muster/g/kept"
    assert place.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}
    listed = do(tmp_path, "list")["plans"]
    assert [plan["number"] for plan in listed] == [7, 6, 5, 4, 3]
    assert not any(key in plan for plan in listed for key in kept_plans.WHOLE)
    assert do(tmp_path, "read", digest=f"{4:016x}")["plan"]["files"][UNIT]["text"] == "# 4\n"


def test_a_plan_that_is_verified_again_is_the_newest_once(tmp_path: Path) -> None:
    keep(tmp_path, 1, digest="a" * 16)
    keep(tmp_path, 2, digest="b" * 16)
    assert keep(tmp_path, 3, digest="a" * 16)["kept"] == ["a" * 16, "b" * 16]


def test_kept_plans_are_no_leftovers(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    answer = probe_group.main({"group": "g", "root": str(tmp_path)})
    assert answer["stale"] == [UNIT]
    assert [plan["number"] for plan in answer["kept"]] == [1]


def test_a_file_that_changed_since_is_not_kept(tmp_path: Path) -> None:
    plan = {"digest": "a" * 16, "number": 1, "files": {UNIT: {"sha256": "0" * 64}}}
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / UNIT.lstrip("/")).write_text("other")
    with pytest.raises(OSError, match="has changed since it was verified"):
        do(tmp_path, "keep", plan=plan)
    assert do(tmp_path, "list") == {"plans": []}


def test_what_another_user_may_write_is_no_plan(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    (tmp_path / "etc/muster/g/kept").chmod(0o777)
    assert do(tmp_path, "list") == {"plans": []}
    assert f"/etc/muster/g/kept/{1:016x}.json" in probe_group.main({"group": "g", "root": str(tmp_path)})["stale"]
    with pytest.raises(OSError, match="is not kept on this host"):
        do(tmp_path, "read", digest=f"{1:016x}")


@pytest.mark.parametrize("text", ["{", "[]", '{"digest": "x"}', '{"digest": "%s", "number": "1"}' % ("a" * 16)])
def test_a_broken_file_is_no_plan(tmp_path: Path, text: str) -> None:
    keep(tmp_path, 1, digest="b" * 16)
    (tmp_path / "etc/muster/g/kept" / f"{'a' * 16}.json").write_text(text)
    assert [plan["digest"] for plan in do(tmp_path, "list")["plans"]] == ["b" * 16]


@pytest.mark.parametrize("group", ["", "..", "a/b", "-x"])
def test_a_name_that_leads_elsewhere(tmp_path: Path, group: str) -> None:
    with pytest.raises(OSError, match="is no name of a group"):
        do(tmp_path, "list", group)


@pytest.mark.parametrize("digest", ["../../shadow", "a", "A" * 16])
def test_a_digest_that_leads_elsewhere(tmp_path: Path, digest: str) -> None:
    with pytest.raises(OSError, match=r"is no digest|is not kept"):
        do(tmp_path, "read", digest=digest)
    with pytest.raises(OSError, match="is no digest"):
        do(tmp_path, "keep", plan={"digest": digest, "number": 1, "files": {}})
