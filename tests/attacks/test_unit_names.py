"""Two groups on one host whose units are called alike: neither stops, removes or hides behind the other's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import probe_group
from muster.preflight import plan_needs
from muster.preflight.needs import Needs

X_VLLM = "muster-x-vllm.service"


def host(root: Path, groups: dict[str, list[str] | None], files: list[str]) -> None:
    """Make a host: group -> units of its plan.json, None where its first deploy is under way; and unit files."""
    for group, units in groups.items():
        (root / "etc/muster" / group).mkdir(parents=True)
        if units is not None:
            (root / "etc/muster" / group / "plan.json").write_text(json.dumps({"units": units}))
    (root / "etc/systemd/system").mkdir(parents=True)
    for name in files:
        (root / "etc/systemd/system" / name).write_text("")


def probed(root: Path, group: str) -> dict[str, Any]:
    return {
        "present": probe_group.present_units(str(root), group),
        "stale": [Path(path).name for path in probe_group.stale(str(root), group, set()) if "/systemd/" in path],
    }


def test_a_group_leaves_the_unit_of_one_with_a_longer_name(tmp_path: Path) -> None:
    host(tmp_path, {"x": ["muster-x.service"], "x-vllm": [X_VLLM]}, ["muster-x.service", X_VLLM])
    assert probed(tmp_path, "x") == {"present": ["muster-x.service"], "stale": ["muster-x.service"]}
    assert probed(tmp_path, "x-vllm")["present"] == [X_VLLM]


def test_what_a_first_deploy_of_it_has_staged_stays_too(tmp_path: Path) -> None:
    staged = f".{X_VLLM}.muster-new"
    host(tmp_path, {"x": ["muster-x.service"], "x-vllm": None}, ["muster-x.service", X_VLLM, staged])
    assert probed(tmp_path, "x")["stale"] == ["muster-x.service"]
    assert probed(tmp_path, "x-vllm")["present"] == [X_VLLM]


def test_units_of_the_groups_own_former_plan_are_still_its_own(tmp_path: Path) -> None:
    host(tmp_path, {"x": [X_VLLM, "muster-x-ray.service"]}, [X_VLLM, "muster-x-ray.service", "muster-x.service"])
    assert probed(tmp_path, "x")["present"] == ["muster-x-ray.service", X_VLLM, "muster-x.service"]


@pytest.mark.parametrize("manifest", ["[]", '{"units": 5}', '{"units": [5, null]}', "{", ""])
def test_a_broken_manifest_claims_nothing_and_stops_nothing(tmp_path: Path, manifest: str) -> None:
    host(tmp_path, {"x": ["muster-x.service"], "y": []}, ["muster-x.service"])
    (tmp_path / "etc/muster/y/plan.json").write_text(manifest)
    assert probed(tmp_path, "x")["present"] == ["muster-x.service"]


def test_the_preflight_counts_no_process_of_another_group_as_its_own() -> None:
    need = Needs("n1", units=("muster-x.service", X_VLLM))
    own = plan_needs.without_others(need, {"x"}, {"x": {"units": [X_VLLM]}, "x-vllm": {"units": [X_VLLM]}})
    assert not own.in_own_unit(f"0::/system.slice/{X_VLLM}")
    assert own.in_own_unit("0::/system.slice/muster-x.service")
