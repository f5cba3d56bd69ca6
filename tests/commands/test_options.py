"""What subcommands share is declared once: the same words mean the same everywhere."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from muster.cli import COMMANDS, main
from muster.commands import options
from muster.errors import Refusal


def test_data_is_read_as_pyinfra_reads_it() -> None:
    pairs = ["port=8123", "offline=true", "group=a=b", 'extra_env={"A": "1"}', "hosts=3x"]
    expected = {"port": 8123, "offline": True, "group": "a=b", "extra_env": {"A": "1"}, "hosts": "3x"}
    assert options.parse_data(pairs) == expected
    with pytest.raises(Refusal, match="--data port"):
        options.parse_data(["port"])


@click.command()
@options.over_inventory(strategy=True)
@options.output_format("text", "json")
def echo(**words: Any) -> None:
    click.echo(repr(words))


def test_a_command_gets_inventory_recipe_and_overrides() -> None:
    ran = CliRunner().invoke(echo, ["i.py", "r", "--strategy", "tp", "--data", "port=1", "--format", "json"])
    words = {
        "inventory_file": "i.py",
        "recipe_name": "r",
        "form": "json",
        "overrides": {"port": 1, "strategy": "tp"},
    }
    assert ast.literal_eval(ran.output) == words


OVER_INVENTORY = [
    name for name in COMMANDS if name not in ("import", "pin", "recipe", "report", "sandbox", "weights", "key")
]


@pytest.mark.parametrize("name", OVER_INVENTORY)
def test_every_command_over_an_inventory_takes_the_same(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"]).stdout
    assert "INVENTORY" in shown.splitlines()[0]
    assert "--data K=V" in shown


@pytest.mark.parametrize("name", OVER_INVENTORY)
def test_every_command_gets_what_its_options_give(name: str, tmp_path: Path) -> None:
    out = ["kimi-k2-instruct", "--out", str(tmp_path / "out")]
    words = {"diff": ["a", "b"], "bundle": out, "monitoring": out, "edge": out}
    ran = CliRunner().invoke(main, [name, str(tmp_path / "none.py"), *words.get(name, ["kimi-k2-instruct"])])
    assert ran.exit_code == 2, ran.output
    assert "none.py" in ran.output


@pytest.mark.parametrize("name", [name for name in OVER_INVENTORY if name != "edge"])
def test_every_command_over_a_fleet_asks_which_group_is_meant(name: str, tmp_path: Path) -> None:
    """But those that take all groups of an inventory."""
    whole = ("plan", "deploy", "status", "monitoring", "events")
    words = {"diff": ["--group", "none", "3f2a"], "bundle": ["--out", str(tmp_path / "out")]}
    more = ["--group", "none"] if name in whole else words.get(name, [])
    more += ["--out", str(tmp_path / "out")] if name == "monitoring" else []
    ran = CliRunner().invoke(main, [name, "inventories/fleet.py", *more])
    assert ran.exit_code == 2, ran.output
    says = (
        "unknown group 'none'" if "none" in more else "--group kimi-a (to pyinfra's own command: --data group=kimi-a)"
    )
    assert says in ran.output


@pytest.mark.parametrize(
    ("recipe", "plans", "group", "meant"),
    [
        ("kimi", ["3f2a", None], "", ("kimi", ["3f2a"])),
        ("3f2a", [None, None], "a", (None, ["3f2a"])),
        ("3f2a", ["91bc", None], "a", (None, ["3f2a", "91bc"])),
        ("kimi", ["3f2a", "91bc"], "a", ("kimi", ["3f2a", "91bc"])),
        (None, [""], "a", (None, [])),
        ("3f2a", [""], "", ("3f2a", [])),
    ],
)
def test_a_digest_is_a_plan_where_a_group_is_named(
    recipe: str | None, plans: list[str | None], group: str, meant: tuple[str | None, list[str]]
) -> None:
    overrides = {"group": group} if group else {}
    assert options.recipe_and_plans(recipe, *plans, overrides=overrides) == meant


def test_a_group_is_said_to_a_removal_as_to_the_others(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["remove", str(tmp_path / "none.py"), "--group", "chat", "--dry"])
    assert ran.exit_code == 2, ran.output
    assert "none.py" in ran.output
