"""`muster top`: the status with its load and events, over and over; the hosts' answers are given."""

from __future__ import annotations

import io

from rich.console import Console

from muster.commands import top
from muster.guard import events
from muster.status.group_status import group_status
from muster.status.host_events import merged
from tests.commands.conftest import GivenGuards, muster
from tests.status.test_group_status import HEAD, OTHER, PLAN, answers
from tests.status.test_host_events import KILLED, line

JOURNALS = {
    HEAD: {"lines": [line(1764178800.0, events.started("g1"))]},
    OTHER: {"lines": [line(1764178801.0, KILLED)]},
}


def test_the_status_is_followed_by_load_and_the_last_events() -> None:
    console = Console(width=80, highlight=False, no_color=True)
    with console.capture() as captured:
        console.print(top.screen(group_status(PLAN, answers()), merged(JOURNALS), "x.py y"))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert lines[0] == "kimi-k2-instruct  running"
    assert "load: 1,600 tokens per second, 16 requests in flight" in lines
    start = lines.index("last events")
    assert lines[start + 1 : start + 3] == [
        "2025-11-26T17:40:00Z  h200-0  start    starting generation g1",
        "2025-11-26T17:40:01Z  h200-1  failure  vllm: vllm was killed by SIGKILL",
    ]


def test_without_a_terminal_it_is_shown_once(guards: GivenGuards) -> None:
    ran = muster("top", "x.py", "kimi-k2-instruct")
    assert (ran.exit_code, ran.stdout.splitlines()[0]) == (0, "kimi-k2-instruct  running")
    assert [command for command, _ in guards.asked] == ["status"]
    guards.answers = [answers(ready=False, phase="failed", reason="failed")]
    assert muster("top", "x.py", "kimi-k2-instruct").exit_code == 1


def test_on_a_terminal_it_goes_on_until_interrupted_and_leaves_the_screen(guards: GivenGuards) -> None:
    failed = answers(ready=False, phase="failed", reason="failed")
    guards.answers = [JOURNALS, failed, KeyboardInterrupt()]  # type: ignore[list-item]
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=30, highlight=False)
    last = top._live(guards, group_status(PLAN, answers()), console, "x.py y", 0.01)  # type: ignore[arg-type]
    assert last.phase == "failed"
    assert [command for command, _ in guards.asked] == ["journals", "status", "status"]
    text = out.getvalue()
    assert "starting generation g1" in text
    assert (text.count("\x1b[?1049h"), text.count("\x1b[?1049l")) == (1, 1)


def test_journals_are_read_less_often_than_guards_are_asked(guards: GivenGuards) -> None:
    now = [0.0]
    guards.answers = [JOURNALS]
    reader = top._EventReader(guards, lambda: now[0])  # type: ignore[arg-type]
    for now[0] in (0.0, 1.0, 9.9, 10.0, 19.0):
        assert len(reader.newest()) == 2
    assert len(guards.asked) == 2


def test_a_group_of_which_nothing_is_known_has_no_load() -> None:
    assert group_status(PLAN, answers(engines=[])).load is None
