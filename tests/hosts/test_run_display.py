"""A run that changes nothing is silent, a log gets few lines of progress, a terminal shows it in place."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from muster.hosts import run_display
from muster.hosts.run_display import RunDisplay


def display(*, terminal: bool = False, verbose: bool = False) -> tuple[RunDisplay, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80, no_color=True, soft_wrap=True)
    return RunDisplay(console=console, verbose=verbose), out


def test_what_was_said_before_is_printed_once_something_changes() -> None:
    shown, out = display()
    shown.line("the group will be started")
    assert out.getvalue() == ""
    shown.changes(True)
    shown.line("more")
    assert out.getvalue() == "the group will be started\nmore\n"


def test_a_run_that_changes_nothing_prints_errors_alone() -> None:
    shown, out = display()
    shown.line("news")
    shown.changes(False)
    shown.line("more news")
    shown.step("Verify: every rank answers")
    assert out.getvalue() == ""
    shown.line("node1 does not answer", important=True)
    shown.step_failed("Verify: every rank answers", "node1")
    assert out.getvalue() == "node1 does not answer\nfailed  Verify: every rank answers (node1)\n"


def test_a_step_names_the_hosts_that_it_has_changed() -> None:
    shown, out = display()
    shown.changes(True)
    shown.step("Engine: vLLM is installed")
    shown.step_failed("Engine: vLLM is installed", "node1")
    shown.step_done("Engine: vLLM is installed", ["node0"])
    assert out.getvalue().splitlines() == [
        "failed  Engine: vLLM is installed (node1)",
        "done    Engine: vLLM is installed (node0)",
    ]


def test_a_log_gets_a_line_of_progress_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(run_display.time, "monotonic", lambda: now[0])
    shown, out = display()
    shown.changes(True)
    shown.step("Engine: vLLM is installed")
    for second in range(50):
        now[0] = float(second)
        for host in ("node0", "node1"):
            shown.progress(host, f"Downloading {second}")
    lines = out.getvalue().splitlines()
    assert lines == [f"[{host}] Downloading {second}" for second in (0, 20, 40) for host in ("node0", "node1")]


def test_a_terminal_shows_progress_in_place() -> None:
    shown, out = display(terminal=True)
    shown.changes(True)
    shown.step("Engine: vLLM is installed")
    for number in range(128):
        shown.progress("node0", f"Downloading {number}")
    shown.step_done("Engine: vLLM is installed", ["node0"])
    shown.close()
    text = out.getvalue()
    assert "node0: Downloading 127" in text
    assert text.count("\x1b[2K") > 128  # each line replaces the one before
    assert "done    Engine: vLLM is installed (node0)" in text
