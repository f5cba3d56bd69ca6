"""What a removal takes: muster's places and nothing besides; of one group nothing of another."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import host_before, kept_plans, mutex, path_users, places, prune_releases, removable, remove_muster

SETTINGS = {"root": "/opt/muster", "hf_home": "/var/lib/muster/hf", "weights_root": "/var/lib/muster/weights"}
REVISION = "a" * 40


def write(root: Path, path: str, text: str = "x") -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def group(root: Path, name: str, guard: str = "0123") -> None:
    """Write what a deploy of one group leaves on a host."""
    unit = f"muster-{name}.service"
    write(root, places.unit(unit), f"{places.MARK}; \nExecStart=/usr/bin/python3 -I /opt/muster/guard/{guard}\n")
    write(root, f"{places.config(name)}/plan.json", json.dumps({"units": [unit], "recipe": "r", "node_rank": 0}))
    for path in (places.tmpfiles(name), f"{places.state(name)}/held.json", f"{places.cache(name)}/vllm/k"):
        write(root, path)
    write(root, f"/opt/muster/guard/{guard}/__main__.py")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with two groups, an engine, weights, and things of others beside them."""
    group(tmp_path, "one", "0123")
    group(tmp_path, "one-vllm", "4567")
    for path in (places.SYSUSERS, places.SYSCTL, places.REPAIRED, f"{places.ACCEPTED}/1", f"{places.UV_CACHE}/w"):
        write(tmp_path, path)
    write(tmp_path, places.FIREWALL_UNIT, places.MARK)
    for name in ("engines/e/bin/vllm", "uv/1/uv", "python/p"):
        write(tmp_path, f"/opt/muster/{name}")
    write(tmp_path, f"/var/lib/muster/weights/org--model/{REVISION}/.muster-manifest.json")
    write(tmp_path, f"/var/lib/muster/weights/org--model/{REVISION}.lock")
    (tmp_path / "var/lib/muster/weights/org--model/current").symlink_to(REVISION)
    (tmp_path / "var/lib/muster/hf").mkdir()
    for path in ("/etc/systemd/system/other.service", "/etc/systemd/system/muster-exporter.service", "/etc/passwd"):
        write(tmp_path, path, "[Unit]\n")
    return tmp_path


def run(root: Path, groups: list[str] | None, *, weights: bool = False, **settings: str) -> dict[str, Any]:
    request = {"at": str(root), "groups": groups, "weights": weights, **SETTINGS, **settings}
    shown = removable.main(request)
    removed = remove_muster.main(request)
    assert removed["removed"] == list(shown["paths"])
    return {**shown, **removed}


def tree(root: Path) -> set[str]:
    return {"/" + str(path.relative_to(root)) for path in root.rglob("*")}


def test_one_group_leaves_the_other_and_what_they_share(host: Path) -> None:
    before = tree(host)
    done = run(host, ["one"])
    assert done["units"] == ["muster-one.service"]
    gone = before - tree(host)
    assert gone >= {"/etc/muster/one", "/var/lib/muster/one", "/var/cache/muster/one", "/opt/muster/guard/0123"}
    assert not {path for path in gone if "one-vllm" in path or "4567" in path}
    assert {path for path in gone if "one" not in path} <= {
        "/opt/muster/guard/0123",
        "/opt/muster/guard/0123/__main__.py",
    }


def test_a_guard_that_another_group_runs_stays(host: Path) -> None:
    group(host, "two", "0123")
    run(host, ["one"])
    assert (host / "opt/muster/guard/0123/__main__.py").exists()


def test_everything_leaves_what_is_not_musters_and_the_weights(host: Path) -> None:
    done = run(host, None)
    assert {path for path in tree(host) if (host / path[1:]).is_file()} == {
        "/etc/passwd",
        "/etc/systemd/system/muster-exporter.service",
        "/etc/systemd/system/other.service",
        f"/var/lib/muster/weights/org--model/{REVISION}/.muster-manifest.json",
        f"/var/lib/muster/weights/org--model/{REVISION}.lock",
    }
    assert (host / "var/lib/muster/weights/org--model/current").is_symlink()
    assert not (host / "opt/muster").exists()
    assert done["kept"].keys() == {"/var/lib/muster/weights/org--model", "/etc/systemd/system/muster-exporter.service"}
    assert done["notes"] == [
        "/var/lib/muster/weights stays: it holds org--model",
        "/var/lib/muster stays: it holds weights",
    ]


def test_with_weights_nothing_is_left(host: Path) -> None:
    assert run(host, None, weights=True)["notes"] == []
    assert not (host / "var/lib/muster").exists()


def test_weights_elsewhere_go_but_not_what_lies_beside_them(host: Path) -> None:
    write(host, f"/data/org--model/{REVISION}/.muster-manifest.json")
    (host / "data/org--model/current").symlink_to(REVISION)
    write(host, f"/data/mine--model/{REVISION}/model.safetensors")
    run(host, None, weights=True, weights_root="/data")
    assert tree(host) >= {f"/data/mine--model/{REVISION}/model.safetensors"}
    assert not (host / "data/org--model").exists()


def test_a_root_that_holds_other_things_stays_and_is_named(host: Path) -> None:
    write(host, "/opt/muster/notes.txt")
    assert "/opt/muster stays: it holds notes.txt" in run(host, None)["notes"]
    assert (host / "opt/muster/notes.txt").exists()


def test_a_link_that_an_administrator_made_stays_with_what_it_leads_to(host: Path) -> None:
    write(host, "/srv/engines/e/bin/vllm")
    (host / "opt/muster/engines").rename(host / "opt/muster/old")
    (host / "opt/muster/engines").symlink_to(host / "srv/engines")
    done = run(host, None)
    assert done["kept"]["/opt/muster/engines"][0] == "is a link, which muster did not make"
    assert (host / "srv/engines/e/bin/vllm").exists()
    assert (host / "opt/muster/engines").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_another_owner_has_stays(host: Path) -> None:
    os.chown(host / "var/lib/muster/one", 4321, 4321)
    done = run(host, ["one"])
    assert done["kept"] == {"/var/lib/muster/one": ["belongs to uid 4321", done["kept"]["/var/lib/muster/one"][1]]}
    assert (host / "var/lib/muster/one/held.json").exists()


def test_a_second_removal_finds_nothing(host: Path) -> None:
    run(host, None, weights=True)
    again = run(host, None, weights=True)
    assert (again["paths"], again["going"], again["notes"]) == ({}, [], [])


def test_groups_that_left_half_of_their_files_are_found(tmp_path: Path) -> None:
    write(tmp_path, places.tmpfiles("half"))
    assert removable.find({"at": str(tmp_path), "groups": None, "weights": False, **SETTINGS}).groups == ["half"]
    assert run(tmp_path, ["half"])["removed"] == [places.tmpfiles("half")]


# releases


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


# what a host was before

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
