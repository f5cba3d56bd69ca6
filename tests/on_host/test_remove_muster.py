"""What a removal takes: muster's places and nothing besides; of one group nothing of another."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import change_record, places, removable, remove_muster

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
    write(tmp_path, f"/var/lib/muster/weights/org--model/{REVISION}.read-rate.json")
    write(tmp_path, f"/var/lib/muster/weights/org--model/{REVISION}.loaders.json")
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


def test_what_says_that_a_group_is_here_goes_last(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = list[str]()
    monkeypatch.setattr(remove_muster.safe_paths, "remove_below", order.append)
    done = remove_muster.main({"at": str(host), "groups": ["one"], "weights": False, **SETTINGS})
    assert order[-1] == f"{host}/etc/muster/one"
    assert sorted(order) == sorted(str(host) + path for path in done["removed"])


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
        f"/var/lib/muster/weights/org--model/{REVISION}.read-rate.json",
        f"/var/lib/muster/weights/org--model/{REVISION}.loaders.json",
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


def test_what_a_change_that_was_cut_left_goes_with_its_group(host: Path) -> None:
    boot = places.unit(places.boot_unit("one"))
    write(host, boot, places.MARK)
    write(host, places.unit(places.boot_unit("one-vllm")), places.MARK)
    for path in change_record.own_files("one"):
        write(host, path)
    done = run(host, ["one"])
    assert done["units"] == ["muster-one.service", places.boot_unit("one")]
    assert not {path for path in tree(host) if "return" in path or "change" in path} - {
        places.unit(places.boot_unit("one-vllm"))
    }
    assert places.boot_unit("one-vllm") in run(host, None)["units"]


def test_everything_waits_for_a_group_whose_lock_is_held_and_that_has_left_nothing_yet(host: Path) -> None:
    change = {"id": "1", "group": "new", "command": "deploy", "who": "ann", "phase": "prepared"}
    (host / "run").mkdir()
    with change_record.locked("new", change, str(host)):
        shown = removable.main({"at": str(host), "groups": None, "weights": False, **SETTINGS})
        assert shown["changes"]["new"]["holder"] == change
        assert (
            "new" not in removable.main({"at": str(host), "groups": ["one"], "weights": False, **SETTINGS})["changes"]
        )
    assert "new" not in removable.main({"at": str(host), "groups": None, "weights": False, **SETTINGS})["changes"]
