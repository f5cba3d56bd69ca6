"""`muster logs` as a user types it; the hosts' answers are given, tests/deploys has real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.commands import journal_text
from tests.commands.conftest import GivenGuards, muster
from tests.status.test_failures import ANSWERS, KILLED
from tests.status.test_group_status import HEAD, OTHER, PLAN


def line(at: float, text: str) -> dict[str, Any]:
    return {"at": at, "text": text}


def test_logs_are_the_lines_of_all_hosts_in_order_with_their_time(guards: GivenGuards) -> None:
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


def test_logs_without_a_line_say_so(guards: GivenGuards) -> None:
    guards.answers = [{HEAD: {"lines": []}}]
    ran = muster("logs", "x.py", "kimi-k2-instruct", "--since", "10m", "--host", HEAD)
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert ran.stderr == f"kimi-k2-instruct: no lines on {HEAD} since 10m\n"


def test_logs_of_one_host_are_followed_from_where_they_ended(
    guards: GivenGuards, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_a_wrong_word_of_logs_is_refused(guards: GivenGuards, words: tuple[str, ...], says: str) -> None:
    ran = muster("logs", "x.py", "kimi-k2-instruct", *words)
    assert (ran.exit_code, says in ran.stderr) == (2, True), ran.stderr


def test_a_time_is_utc_unless_it_says_otherwise() -> None:
    assert journal_text.since("1970-01-01T00:10") == journal_text.since("1970-01-01T01:10+01:00") == {"time": 600.0}


def test_a_failure_is_one_file_and_a_few_words(
    guards: GivenGuards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_no_failure_writes_no_file(guards: GivenGuards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    guards.answers = [{HEAD: {"answer": {"bundles": []}}, OTHER: {"answer": {"bundles": []}}}]
    ran = muster("logs", "x.py", "kimi-k2-instruct", "--failure")
    assert (ran.exit_code, ran.stdout) == (0, f"kimi-k2-instruct: no failure was kept on {HEAD}, {OTHER}\n")
    assert list(tmp_path.iterdir()) == []
