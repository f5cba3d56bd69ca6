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


def test_a_group_is_said_to_a_removal_as_to_the_others(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["remove", str(tmp_path / "none.py"), "--group", "chat", "--dry"])
    assert ran.exit_code == 2, ran.output
    assert "none.py" in ran.output
