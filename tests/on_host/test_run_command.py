"""A tool is bounded in time and output, and what it leaves behind is not waited for."""

from __future__ import annotations

import re
import time

import pytest

from muster.on_host import run_command


def test_output_errors_and_status_come_apart() -> None:
    done = run_command.finish(["sh", "-c", "cat; echo err >&2; exit 3"], 10, stdin="in ü\n")
    assert (done.status, done.output, done.errors, done.truncated) == (3, "in ü\n", "err\n", False)
    assert run_command.run(["sh", "-c", "echo err >&2; echo out; exit 3"]) == (3, "out\nerr\n")


def test_a_tool_that_is_missing_or_late_has_a_status_of_its_own() -> None:
    assert run_command.run(["no-such-tool"])[0] == run_command.MISSING
    assert run_command.run(["sleep", "60"], 0.2) == (run_command.LATE, "sleep did not answer in 0.2 s")
    with pytest.raises(OSError, match=r"`no-such-tool` ended with 127"):
        run_command.must(["no-such-tool"])


def test_children_end_with_a_late_tool() -> None:
    before = time.monotonic()
    with pytest.raises(TimeoutError):
        run_command.finish(["sh", "-c", "sleep 61.5 & sleep 61.5"], 0.2)
    assert time.monotonic() - before < 20
    assert run_command.finish(["pgrep", "-f", "^sleep 61.5"], 10).output == ""


def test_a_flood_ends_at_the_limit() -> None:
    done = run_command.finish(["sh", "-c", "yes; exit 0"], 60, limit=100_000)
    assert (done.truncated, len(done.output)) == (True, 100_000)


def test_a_tool_that_closes_its_output_and_lives_on_is_killed() -> None:
    before = time.monotonic()
    done = run_command.finish(["sh", "-c", "exec >&- 2>&-; sleep 60"], 1)
    assert done.status is None
    assert time.monotonic() - before < 20


def test_only_lines_that_match_are_kept_and_all_are_counted() -> None:
    done = run_command.finish(["sh", "-c", "echo a; echo Xid b; echo c"], 10, keep=re.compile(rb"Xid"))
    assert (done.output, done.lines) == ("Xid b\n", 3)
