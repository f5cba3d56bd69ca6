"""The groups of an inventory that an edge is before, and the command that writes its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.cli import main
from muster.edge.groups_behind import groups_behind
from muster.errors import Refusal
from muster.spec import inventory, inventory_source

FLEET = "inventories/fleet.py"


def test_every_group_that_names_its_recipe_is_behind_the_edge() -> None:
    fleets = inventory.groups_for(inventory_source.load(FLEET), None, name=FLEET)
    behind = groups_behind(fleets, None)
    assert list(behind.plans) == list(behind.settings) == list(fleets)
    assert [group.name for group in behind.plan.groups] == [plan.group for plan in behind.plans.values()]
    # Two groups of the example serve one model.
    assert max(len(groups) for groups in behind.plan.models.values()) == 2


def test_a_group_that_is_named_is_alone_behind_the_edge() -> None:
    loaded = inventory_source.load(FLEET, {"group": "gpt"})
    behind = groups_behind(inventory.groups_for(loaded, None, name=FLEET), None)
    assert [group.name for group in behind.plan.groups] == ["gpt"]


def test_groups_with_different_edges_are_refused_by_setting() -> None:
    fleets = inventory.groups_for(inventory_source.load(FLEET), None, name=FLEET)
    first = next(iter(fleets))
    other = replace(fleets[first], settings=fleets[first].settings.having(edge_port=8443))
    with pytest.raises(Refusal, match="edge_port is 8443 for"):
        groups_behind({**fleets, first: other}, None)


@pytest.mark.parametrize("words", [[FLEET], ["inventories/h200-16.py", "kimi-k2-instruct"]])
def test_the_command_writes_files_and_names_what_is_secret(words: list[str], tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["edge", *words, "--out", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()} == {
        "haproxy.cfg",
        "muster/models.map",
        "muster/fleet.html",
        "muster/refuse.lua",
    }
    assert "muster: edge.pem, keys.map" in ran.stderr


def test_without_a_group_it_says_how_to_name_one(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["edge", "inventories/h200-16.py", "--out", str(tmp_path)])
    assert ran.exit_code == 2
