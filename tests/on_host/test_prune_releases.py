"""Releases of the engine that stay: the running one, the one before, and whatever a plan or a process names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from muster.on_host import kept_plans, mutex, path_users, prune_releases
from tests.on_host.test_remove_muster import write


def release(engines: Path, name: str, completed: int = 0) -> None:
    (engines / name / "bin").mkdir(parents=True)
    (engines / f"{name}.lock").touch()
    (engines / f"{name}.locked").mkdir()
    if completed:
        stamp = engines / name / ".muster-complete"
        stamp.touch()
        os.utime(stamp, (completed, completed))


def pruned(root: Path, running: str) -> dict[str, Any]:
    request = {
        "engines": str(root / "engines"),
        "running": running,
        "etc": str(root / "etc"),
        "proc": str(root / "proc"),
    }
    return prune_releases.main(request)


def test_two_releases_stay_and_failed_ones_go(tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    for name, completed in (("a", 1), ("b", 2), ("c", 3), ("failed", 0), ("now", 4)):
        release(engines, name, completed)
    done = pruned(tmp_path, "now")
    assert done["kept"] == {"now": "runs", "c": "the one before"}
    assert set(done["removed"]) == {"a", "b", "failed"}
    assert {path.name for path in engines.iterdir()} == {"now", "now.lock", "now.locked", "c", "c.lock", "c.locked"}


def test_a_release_that_any_plan_or_process_names_stays(tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    for number, name in enumerate(("unit", "kept", "process", "old", "before", "now"), 1):
        release(engines, name, number)
    write(tmp_path, "/etc/systemd/system/muster-g.service", f"ExecStart={engines}/unit/bin/vllm")
    write(tmp_path, "/etc/muster/other/plans/1/guard.json", f'["{engines}/kept/bin/vllm"]')
    write(tmp_path, "/proc/77/cmdline", f"{engines}/process/bin/vllm\0serve")
    assert set(pruned(tmp_path, "now")["removed"]) == {"old"}


def test_a_release_that_is_being_installed_stays(tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    release(engines, "now", 1)
    release(engines, "half")
    with mutex.held(str(engines / "half.lock"), "installs", minutes=1):
        assert pruned(tmp_path, "now")["removed"] == {}
    assert set(pruned(tmp_path, "now")["removed"]) == {"half"}


def test_a_release_at_the_end_of_the_largest_plan_that_is_kept_is_found(tmp_path: Path) -> None:
    engine = "/opt/muster/engines/e"
    write(tmp_path, "/etc/muster/g/kept/1.json", " " * (kept_plans.LIMIT - len(engine)) + engine)
    assert path_users.users_of(engine, str(tmp_path / "etc"), str(tmp_path / "proc"))


def test_users_of_a_path_are_named(tmp_path: Path) -> None:
    write(tmp_path, "/etc/muster/g/guard.json", "/opt/muster/engines/e/bin/vllm")
    write(tmp_path, "/etc/other", "/opt/muster/engines/e")
    users = path_users.users_of("/opt/muster/engines/e", str(tmp_path / "etc"), str(tmp_path / "proc"))
    assert users == [f"{tmp_path}/etc/muster/g/guard.json"]
