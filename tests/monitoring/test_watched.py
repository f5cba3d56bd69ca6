"""Several groups that one Prometheus watches: what they share, what each has of its own, and a host of two groups."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from muster.deploys import monitoring
from muster.errors import Refusal
from muster.monitoring import configuration
from muster.monitoring.watched import watched
from muster.spec import inventory, inventory_source, pins, recipe
from muster.spec.inventory import Fleet
from muster.spec.listing import Entry, Listing

FLEET = "inventories/fleet.py"


def fleets(**changed: Mapping[str, object]) -> dict[str, Fleet]:
    """Return the groups of the example, some with other settings."""
    found = inventory.groups_for(inventory_source.load(FLEET), None, name=FLEET)
    return {
        name: replace(fleet, settings=fleet.settings.having(**changed.get(name, {}))) for name, fleet in found.items()
    }


def test_every_group_has_targets_and_a_key_of_its_own() -> None:
    groups = watched(fleets(kimi_b={"api_key_file": "/k"}), None, edged=True)
    files = configuration.files(groups)
    names = [plan.group for plan, _ in groups.groups]
    assert names == ["kimi-a", "kimi-b", "llama", "gpt"]
    assert {f"muster/targets/{name}.guard.json" for name in names} <= files.keys()
    assert groups.keyed == {"kimi-b"}
    assert "muster-engine-kimi-b" in files[configuration.PROMETHEUS]
    shared = [json.loads(files[f"muster/targets/{name}.node.json"]) for name in ("llama", "gpt")]
    assert [each[0]["targets"] for each in shared] == [["198.51.100.15:9100"]] * 2


def test_groups_that_are_to_be_watched_differently_are_refused_by_setting() -> None:
    with pytest.raises(Refusal, match="monitoring_patience is 300 for kimi_a and 60 for gpt"):
        watched(fleets(gpt={"monitoring_patience": 60}), None, edged=False)
    watched(fleets(gpt={"monitoring_dcgm_port": 9400}), None, edged=False)


def test_an_edge_is_one_for_all_groups() -> None:
    two = fleets(gpt={"edge_monitor_port": 8406})
    with pytest.raises(Refusal, match="edge_monitor_port is 8405 for kimi_a and 8406 for gpt"):
        watched(two, None, edged=True)
    watched(two, None, edged=False)


def test_a_host_of_two_groups_is_measured_once_with_the_weights_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        name: replace(fleet, homes=(tmp_path,), settings=fleet.settings.having(weights_source="hub"))
        for name, fleet in fleets().items()
    }
    with monkeypatch.context() as patched:
        patched.chdir(tmp_path)
        for fleet in given.values():
            meant = recipe.load(str(fleet.settings.recipe))
            pins.write(meant.pin, Listing(meant.model, "d" * 40, "hub", (Entry("a.safetensors", 1 << 30, "1" * 64),)))
    measured = monitoring._measured(watched(given, None, edged=False), given, None)
    assert list(measured) == ["gpu-0", "gpu-1", "gpu-2", "gpu-3", "gpu-4"]
    _, kimi = measured["gpu-0"]
    assert [each["group"] for each in kimi] == ["kimi-a"]
    _, weights = measured["gpu-4"]
    assert [each["group"] for each in weights] == ["llama", "gpt"]
    assert weights[0]["directory"] != weights[1]["directory"]
