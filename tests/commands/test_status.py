"""`muster status` and `muster logs` as a user types them; the hosts' answers are given, tests/deploys has real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from muster.cli import main
from muster.commands import journal_text
from tests.status.test_failures import ANSWERS, KILLED
from tests.status.test_group_status import HEAD, OTHER, PLAN, answers

Ask = Callable[..., dict[str, Any]]
Muster = Callable[..., Result]


class Guards:
    """What `guards_of` gives, with the answers of a test."""

    plan = PLAN

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[dict[str, Any]] = [answers()]

    def journals(self, requests: dict[str, Any]) -> dict[str, Any]:
        return self.ask("journals", **requests)

    def ask(self, verb: str, **more: Any) -> dict[str, Any]:
        self.asked.append((verb, more))
        reply = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(reply, BaseException):
            raise reply
        return reply


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> Guards:
    there = Guards()

    @contextmanager
    def guards_of(*_: object) -> Iterator[Guards]:
        yield there

    monkeypatch.setattr("muster.status.ask_guards.guards_of", guards_of)
    monkeypatch.setenv("COLUMNS", "80")
    return there


def muster(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_a_ready_group_exits_with_0_and_any_other_with_1(guards: Guards) -> None:
    ran = muster("status", "x.py", "kimi-k2-instruct")
    assert (ran.exit_code, ran.stdout.splitlines()[0]) == (0, "kimi-k2-instruct  running")
    guards.answers = [answers(ready=False, phase="failed", reason="failed")]
    ran = muster("status", "x.py", "kimi-k2-instruct")
    assert (ran.exit_code, ran.stdout.splitlines()[0]) == (1, "kimi-k2-instruct  failed")


def test_json_is_one_document(guards: Guards) -> None:
    guards.answers = [{**answers(), OTHER: {"error": "timed out"}}]
    data = json.loads(muster("status", "x.py", "kimi-k2-instruct", "--format", "json").stdout)
    assert (data["phase"], data["hosts"][1]["note"]) == ("running", "timed out")


@pytest.mark.parametrize("kind", ["table", "json"])
def test_watching_asks_until_interrupted_and_exits_as_it_was_last(guards: Guards, kind: str) -> None:
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


def line(at: float, text: str) -> dict[str, Any]:
    return {"at": at, "text": text}


def test_logs_are_the_lines_of_all_hosts_in_order_with_their_time(guards: Guards) -> None:
    first, second = {"lines": [line(60, "one"), line(180, "three")]}, {"lines": [line(120, "two")]}
    guards.answers = [{HEAD: first, OTHER: second}, {HEAD: first, OTHER: {"error": "timed out"}}]
    ran = muster("logs", "x.py", "kimi-k2-instruct", "--lines", "7", "--since", "10m")
    rows = [(60, HEAD, "one"), (120, OTHER, "two"), (180, HEAD, "three")]
    assert ran.stdout == "".join(f"1970-01-01T00:0{at // 60}:00Z  {host}  {text}\n" for at, host, text in rows)
    assert ran.exit_code == 0
    request = {"count": 7, "polling": False, "age": 600.0}
    assert guards.asked == [("journals", dict.fromkeys(PLAN.hosts, request))]
    ran = muster("logs", "x.py", "kimi-k2-instruct")
    assert (ran.exit_code, ran.stderr) == (1, f"{OTHER}: timed out\n")


def test_logs_of_one_host_are_followed_from_where_they_ended(guards: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.commands.logs.FOLLOW_SECONDS", 0)
    guards.answers = [
        {HEAD: {"lines": [line(0, "one")], "cursor": "c1"}},
        {HEAD: {"error": "timed out"}},
        {HEAD: {"error": "timed out"}},
        {HEAD: {"lines": [line(1, "two")], "cursor": "c2"}},
        KeyboardInterrupt(),  # type: ignore[list-item]
    ]
    ran = muster("logs", "x.py", "kimi-k2-instruct", "-f", "--host", HEAD, "--all")
    assert ran.exit_code == 0
    assert [text.split("  ")[-1] for text in ran.stdout.splitlines()] == ["one", "two"]
    assert ran.stderr == f"{HEAD}: timed out\n"
    begun, then = {"count": 20, "polling": True}, {"count": 2000, "polling": True, "after": "c1"}
    assert [more[HEAD] for _, more in guards.asked][:4] == [begun, then, then, then]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--since", "yesterday"), "a duration such as 10m"),
        (("--host", "h200-9"), "unknown host 'h200-9'; did you mean"),
        (("--failure", "--follow"), "do not go with --failure"),
    ],
)
def test_a_wrong_word_of_logs_is_refused(guards: Guards, words: tuple[str, ...], says: str) -> None:
    ran = muster("logs", "x.py", "kimi-k2-instruct", *words)
    assert (ran.exit_code, says in ran.stderr) == (2, True), ran.stderr


def test_a_time_is_utc_unless_it_says_otherwise() -> None:
    assert journal_text.since("1970-01-01T00:10") == journal_text.since("1970-01-01T01:10+01:00") == {"time": 600.0}


def test_a_failure_is_one_file_and_a_few_words(guards: Guards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    guards.answers = [ANSWERS]
    ran = muster("logs", "x.py", "kimi-k2-instruct", "--failure")
    assert ran.exit_code == 1
    name = "failure-kimi-k2-instruct-20261122T100001Z.json"
    assert ran.stdout.splitlines()[1] == f"b: {KILLED}"
    assert ran.stdout.splitlines()[-1] == f"{name}: 1 failure, bundles of a, b"
    assert ran.stderr.splitlines()[0] == "c: timed out"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    data = json.loads((tmp_path / name).read_text())
    assert (data["version"], data["failures"][0]["host"]) == (1, "b")
    piped = muster("logs", "x.py", "kimi-k2-instruct", "--failure", "--count", "2", "--out", "-")
    assert len(json.loads(piped.stdout)["failures"]) == 2


def test_no_failure_writes_no_file(guards: Guards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    guards.answers = [{HEAD: {"answer": {"bundles": []}}, OTHER: {"answer": {"bundles": []}}}]
    ran = muster("logs", "x.py", "kimi-k2-instruct", "--failure")
    assert (ran.exit_code, ran.stdout) == (0, f"kimi-k2-instruct: no failure was kept on {HEAD}, {OTHER}\n")
    assert list(tmp_path.iterdir()) == []
