"""What a host has: pruned only where unused, linked only where complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.on_host import weights_on_disk
from tests.on_host.transfer_runs import model


def test_prune_spares_what_a_unit_or_a_process_names(tmp_path: Path) -> None:
    root = tmp_path / "org--model"
    for name in "abcdef":
        model(root / (name * 40), {"x": 10})
        if name != "f":  # which is somebody else's
            (root / f"{name * 40}.lock").touch()
            (root / f"{name * 40}.read-rate.json").touch()
            (root / f"{name * 40}.loaders.json").touch()
    (root / "current").symlink_to("b" * 40)
    unit = tmp_path / "etc" / "systemd" / "system" / "muster-g.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(f"ExecStart=/x serve {root}/{'c' * 40}\n")
    process = tmp_path / "proc" / "77" / "cmdline"
    process.parent.mkdir(parents=True)
    process.write_bytes(f"vllm\0serve\0{root}/{'d' * 40}\0".encode())
    asked = {
        "do": "prune",
        "directory": f"{root}/{'a' * 40}",
        "etc": str(tmp_path / "etc"),
        "proc": str(tmp_path / "proc"),
    }
    dry = weights_on_disk.main({**asked, "dry": True})
    assert list(dry["removed"]) == ["e" * 40]
    assert (root / ("e" * 40)).is_dir()
    assert weights_on_disk.main(asked)["removed"] == dry["removed"]
    assert {path.name for path in root.iterdir()} == {
        *(name * 40 for name in "abcdf"),
        *(f"{name * 40}.{suffix}" for name in "abcd" for suffix in ("lock", "read-rate.json", "loaders.json")),
        "current",
    }


def test_a_link_is_not_moved_to_what_is_not_complete(tmp_path: Path) -> None:
    model(tmp_path / ("a" * 40), {"x": 10})
    with pytest.raises(OSError, match="is not complete"):
        weights_on_disk.main({"do": "link", "directory": str(tmp_path / ("a" * 40)), "manifest": "0" * 64})
