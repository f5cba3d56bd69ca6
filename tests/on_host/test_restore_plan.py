"""A kept plan put back on a host: every file as it was, nothing of the plan that failed left, secrets as they are."""

from __future__ import annotations

import grp
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import kept_plans, restore_plan
from muster.on_host.whole_files import text_sha256

USER = pwd.getpwuid(os.geteuid()).pw_name
GROUP = grp.getgrgid(os.getegid()).gr_name
UNIT, ENV, KEY = "/etc/systemd/system/muster-g.service", "/etc/muster/g/vllm.env", "/etc/muster/g/guard-key"
SYSCTL, MANIFEST = "/etc/sysctl.d/90-muster.conf", "/etc/muster/g/plan.json"
OLD = {UNIT: "[Unit]\n", ENV: "A=1\n", SYSCTL: "a = 1\n", MANIFEST: json.dumps({"group": "g", "hosts": 2})}
DIGEST = "a" * 16


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(0o644)


def now(root: Path) -> dict[str, str]:
    kept = root / "etc/muster/g/kept"
    files = [path for path in (root / "etc").rglob("*") if path.is_file() and kept not in path.parents]
    return {f"/{path.relative_to(root)}": path.read_text() for path in files}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host that keeps a plan, and has another one in place."""
    write(tmp_path, {**OLD, KEY: "key\n"})
    (tmp_path / "opt/e/bin").mkdir(parents=True)
    (tmp_path / "opt/e/bin/vllm").touch(0o755)
    files = {
        path: {"sha256": text_sha256(text), "mode": "644", "owner": USER, "group": GROUP, "base": path == SYSCTL}
        for path, text in OLD.items()
    }
    plan = {
        "digest": DIGEST,
        "number": 1,
        "release": {"id": "e", "path": "/opt/e", "managed": False},
        "units": ["muster-g.service"],
        "secrets": {KEY: text_sha256("key\n")},
        "verify": {"processes": []},
        "settings": {},
        "files": files,
    }
    kept_plans.main({"do": "keep", "group": "g", "plan": plan, "root": str(tmp_path)})
    write(tmp_path, {UNIT: "[Unit]\n#\n", SYSCTL: "a = 2\n", "/etc/muster/g/new.json": "{}"})
    (tmp_path / ENV.lstrip("/")).unlink()
    return tmp_path


def do(root: Path, step: str) -> dict[str, Any]:
    return restore_plan.main({"do": step, "group": "g", "digest": DIGEST, "root": str(root)})


def test_every_file_is_as_it_was_and_what_the_plan_does_not_name_is_gone(root: Path) -> None:
    before = now(root)
    assert do(root, "check")["lacks"] == []
    assert now(root) == before
    assert sorted(do(root, "stage")["changed"]) == [ENV, UNIT]
    assert {path: text for path, text in now(root).items() if not path.endswith(".muster-new")} == before
    do(root, "commit")
    assert now(root) == {**OLD, KEY: "key\n"}
    assert do(root, "stage") == do(root, "commit") == {"changed": [], "notes": []}


def test_what_it_needs_and_is_gone_is_named_before_anything_changes(root: Path) -> None:
    (root / "opt/e/bin/vllm").unlink()
    (root / KEY.lstrip("/")).unlink()
    assert do(root, "check")["lacks"] == ["the engine /opt/e", KEY]


def test_a_secret_that_has_changed_since_stays_and_is_named(root: Path) -> None:
    (root / KEY.lstrip("/")).write_text("another\n")
    answer = do(root, "check")
    assert answer["lacks"] == []
    assert answer["notes"] == [f"{KEY} has changed since plan {DIGEST} was verified; it stays as it is now"]
    assert answer["manifest"] == {"group": "g", "hosts": 2}
    do(root, "stage")
    do(root, "commit")
    assert (root / KEY.lstrip("/")).read_text() == "another\n"


def test_a_plan_that_is_not_kept_here(root: Path) -> None:
    with pytest.raises(OSError, match="is not kept on this host"):
        restore_plan.main({"do": "check", "group": "g", "digest": "b" * 16, "root": str(root)})


def test_nothing_is_put_in_place_once_the_lock_of_the_change_is_lost(root: Path) -> None:
    do(root, "stage")
    before = now(root)
    step = {"do": "commit", "group": "g", "digest": DIGEST, "root": str(root), "fence": {"group": "g", "change": "1"}}
    with pytest.raises(OSError, match="this run has lost the lock"):
        restore_plan.main(step)
    assert now(root) == before


def test_a_plan_in_another_form_is_left_as_it_is(root: Path) -> None:
    path = root / f"etc/muster/g/kept/{DIGEST}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    before = now(root)
    for do in ("check", "stage", "commit"):
        with pytest.raises(OSError, match="is kept in form 2, this muster reads form 1; nothing was changed"):
            restore_plan.main({"do": do, "group": "g", "digest": DIGEST, "root": str(root)})
    assert now(root) == before
