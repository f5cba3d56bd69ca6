"""`muster status` as a user types it; the hosts' answers are given, tests/deploys has real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from muster.cli import main
from muster.edge.edge_plan import EdgePlan, edge_group
from muster.spec.settings import Settings
from muster.status.fleet_status import EdgeLoad
from tests.commands.conftest import GivenGuards, muster
from tests.status.test_group_status import HEAD, OTHER, answers


def test_a_ready_group_exits_with_0_and_any_other_with_1(guards: GivenGuards) -> None:
    ran = muster("status", "x.py", "kimi-k2-instruct")
    assert (ran.exit_code, ran.stdout.splitlines()[0]) == (0, "kimi-k2-instruct  running")
    guards.answers = [answers(ready=False, phase="failed", reason="failed")]
    ran = muster("status", "x.py", "kimi-k2-instruct")
    assert (ran.exit_code, ran.stdout.splitlines()[0]) == (1, "kimi-k2-instruct  failed")


def test_a_host_that_is_left_out_costs_the_exit_status(guards: GivenGuards) -> None:
    told = answers()
    told[HEAD]["answer"]["group"]["members"][1]["refused"] = "h200-1 carries plan a, the head b"
    guards.answers = [told]
    ran = muster("status", "x.py", "kimi-k2-instruct")
    assert (ran.exit_code, ran.stdout.splitlines()[0]) == (1, "kimi-k2-instruct  running")
    assert "without h200-1, which the running group leaves out: muster deploy x.py" in ran.stdout


def test_json_is_one_document(guards: GivenGuards) -> None:
    guards.answers = [{**answers(), OTHER: {"error": "timed out"}}]
    data = json.loads(muster("status", "x.py", "kimi-k2-instruct", "--format", "json").stdout)
    assert (data["phase"], data["hosts"][1]["note"]) == ("running", "timed out")


@pytest.mark.parametrize("kind", ["table", "json"])
def test_watching_asks_until_interrupted_and_exits_as_it_was_last(guards: GivenGuards, kind: str) -> None:
    last = answers(ready=False, phase="gather", reason="gather, h200-1: silent", engines=[])
    guards.answers = [answers(), last, KeyboardInterrupt()]  # type: ignore[list-item]
    ran = muster("status", "x.py", "kimi-k2-instruct", "--watch", "--every", "0.1", "--format", kind)
    assert ran.exit_code == 1
    assert len(guards.asked) == 3
    if kind == "json":
        assert [json.loads(line)["phase"] for line in ran.stdout.splitlines()] == ["running", "gather"]
    else:
        titles = [line for line in ran.stdout.splitlines() if line.startswith("kimi")]
        assert titles == ["kimi-k2-instruct  running", "kimi-k2-instruct  gather  h200-1: silent"]


def test_wrong_input_exits_with_2(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.py"
    inventory.write_text("hosts = []\n")
    assert muster("status", str(inventory), "no-such-recipe").exit_code == 2
    assert muster("logs", str(inventory), "no-such-recipe", "--failure").exit_code == 2
    assert muster("logs", str(inventory), "kimi-k2-instruct", "--out", "x").exit_code == 2


@pytest.mark.parametrize("command", ["status", "logs"])
def test_help_has_examples_and_exit_statuses_in_80_columns(command: str) -> None:
    help_text = CliRunner().invoke(main, [command, "--help"], terminal_width=80).stdout
    assert f"  muster {command} inventories/h200-16.py kimi-k2-instruct\n" in help_text
    assert "Exit status: 0 every " in help_text
    assert max(map(len, help_text.splitlines())) <= 80


def test_without_a_recipe_every_group_is_asked(guards: GivenGuards, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def guards_of_fleet(*_: object) -> Iterator[SimpleNamespace]:
        behind = EdgePlan((edge_group(guards.plan, Settings()),), Settings().edge)
        edges = SimpleNamespace(plan=behind, load=lambda: EdgeLoad({"kimi-k2": 9}))
        yield SimpleNamespace(groups={"a": guards, "b": guards}, edges=edges)

    monkeypatch.setattr("muster.status.ask_guards.guards_of_fleet", guards_of_fleet)
    ran = muster("status", "fleet.py")
    assert (ran.exit_code, ran.stdout.splitlines()[0]) == (0, "2 of 2 groups serve")
    guards.answers = [answers(ready=False, phase="failed", reason="failed")]
    ran = muster("status", "fleet.py", "--format", "json")
    told = json.loads(ran.stdout)
    assert (ran.exit_code, told["whole"], told["asked"]) == (1, False, {"kimi-k2": 9})
    assert told["shortages"] == ["kimi-k2: 9 requests run or wait; without kimi-k2-instruct nobody serves it"]
    assert muster("status", "fleet.py", "--group", "kimi").stdout.startswith("kimi-k2-instruct  failed")
