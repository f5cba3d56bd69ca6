"""`muster events` as a user types it; tests/deploys has real hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.guard import events
from tests.commands.conftest import muster
from tests.status.test_host_events import KILLED, line

ANSWERS: dict[str, dict[str, Any]] = {
    "h200-0": {"lines": [line(1764178800.0, events.started("g1"))]},
    "h200-10": {"lines": [line(1764178801.0, KILLED)]},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Put answers in the place of hosts; keeps what was asked."""
    kept: dict[str, Any] = {"answers": ANSWERS}

    def ask(*words: Any) -> dict[str, dict[str, Any]]:
        kept["words"] = words
        answers: dict[str, dict[str, Any]] = kept["answers"]
        return answers

    monkeypatch.setattr("muster.status.host_events.ask", ask)
    return kept


def test_without_a_recipe_every_line_names_its_group(asked: dict[str, Any]) -> None:
    ran = muster("events", "x.py", "--since", "2h")
    assert (ran.exit_code, asked["words"]) == (0, ("x.py", None, {}, {"age": 7200.0}, 50))
    assert ran.stdout.splitlines() == [
        "2025-11-26T17:40:00Z  h200-0   kimi-k2  start    starting generation g1",
        "2025-11-26T17:40:01Z  h200-10  kimi-k2  failure  vllm: vllm was killed by SIGKILL",
    ]


def test_with_a_recipe_there_is_one_group(asked: dict[str, Any]) -> None:
    ran = muster("events", "x.py", "kimi-k2-instruct", "--count", "3")
    assert asked["words"] == ("x.py", "kimi-k2-instruct", {}, {}, 3)
    assert ran.stdout.splitlines()[0] == "2025-11-26T17:40:00Z  h200-0   start    starting generation g1"


def test_json_is_one_list_and_a_silent_host_costs_the_exit_status(asked: dict[str, Any]) -> None:
    asked["answers"] = {**ANSWERS, "h200-11": {"error": "timed out"}}
    ran = muster("events", "x.py", "--format", "json")
    assert (ran.exit_code, ran.stderr) == (1, "h200-11: timed out\n")
    assert [event["event"] for event in json.loads(ran.stdout)] == ["start", "failure"]


def test_nothing_is_an_empty_list(asked: dict[str, Any]) -> None:
    asked["answers"] = {"h200-0": {"lines": []}}
    assert muster("events", "x.py", "--format", "json").stdout == "[]\n"
    assert muster("events", "x.py").stdout == ""


def test_wrong_input_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "hosts.py").write_text("hosts = []\n")
    assert muster("events", str(tmp_path / "hosts.py"), "no-such-recipe").exit_code == 2
    assert muster("events", "x.py", "--since", "yesterday").exit_code == 2
