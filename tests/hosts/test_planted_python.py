"""What tests plant before a host's Python takes effect wherever muster starts one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from muster.hosts import programs
from tests import planted_python

PROGRAM = b"import time; print('ran at', time.time())"
COMMANDS = {"a program": programs.COMMAND, "one that goes on reading": programs.open_command(len(PROGRAM))}


def run(command: str, script: str, directory: Path) -> str:
    """Return what a host prints that has this script for its first python3."""
    (directory / "python3").write_text(script)
    (directory / "python3").chmod(0o755)
    words = ["env", f"PATH={directory}:/usr/bin:/bin", "sh", "-c", command]
    return subprocess.run(words, input=PROGRAM, capture_output=True, timeout=60).stdout.decode().strip()


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_program_runs_after_the_lines_that_were_planted(command: str, tmp_path: Path) -> None:
    prelude = "import time\ntime.time = lambda: 'noon'"
    assert run(command, planted_python.beginning_with(prelude), tmp_path) == "ran at noon"
    assert run(command, planted_python.beginning_with(prelude, within="nice -n 1"), tmp_path) == "ran at noon"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_python_in_other_hands_does_as_it_likes(command: str, tmp_path: Path) -> None:
    assert run(command, planted_python.doing("cat >/dev/null; echo owned"), tmp_path) == "owned"
