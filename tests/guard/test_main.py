"""The guard's command line, and that its files run alone."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muster import guard
from muster.guard import credentials, main

from .test_config import DATA


def test_the_literal_commands_follow_the_dashes() -> None:
    words = ["--config", "f", "--", "ray", "start", "--then", "vllm", "serve", "m", "--config", "x", "--", "y"]
    assert main.command_lines_of(words) == (
        "f",
        [["ray", "start"], ["vllm", "serve", "m", "--config", "x", "--", "y"]],
    )


@pytest.mark.parametrize(
    "words", [[], ["--config", "f"], ["--config", "f", "--"], ["--config", "f", "--", "--then", "a"]]
)
def test_another_command_line_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == main.UNUSABLE
    assert capsys.readouterr().err.startswith("muster: ")


def test_commands_and_processes_must_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "guard.json"
    path.write_text(json.dumps(DATA))
    assert main.main(["--config", str(path), "--", "vllm"]) == main.UNUSABLE
    assert "1 commands after `--`, but" in capsys.readouterr().err


def test_the_guard_says_that_it_has_no_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(credentials, "hide_memory", str)
    path = tmp_path / "guard.json"
    path.write_text(json.dumps(DATA))
    assert main.main(["--config", str(path), "--", "ray", "--then", "vllm"]) == main.UNUSABLE
    assert "the unit needs StandardInput=file: with the group's key" in capsys.readouterr().err


def test_the_program_imports_nothing_but_the_standard_library() -> None:
    for name, text in guard.program_files().items():
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for module in names:
                assert module.split(".")[0] in (*sys.stdlib_module_names, "guard"), f"{name} imports {module}"


def test_ctl_answers_json_whatever_happens(tmp_path: Path) -> None:
    for name, text in guard.program_files().items():
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    where = tmp_path / "guard.json"
    where.write_text(json.dumps({**DATA, "runtime_directory": str(tmp_path), "state_directory": str(tmp_path)}))
    command = [sys.executable, "-I", str(tmp_path / "package"), "ctl"]

    def ask(*words: str) -> tuple[int, dict[str, Any]]:
        result = subprocess.run([*command, *words], capture_output=True, text=True)
        assert result.stderr == ""
        return result.returncode, json.loads(result.stdout)

    status, answer = ask("--config", str(where), "status")
    assert status == 1
    assert answer["error"].startswith("no guard answers at ")
    assert "systemctl status muster-kimi-k2.service" in answer["error"]
    assert ask("--config", "/nonexistent", "status")[0] == 1
    assert ask("nonsense")[1]["error"].startswith("usage: ")
    assert ask("--config", str(where), "logs") == (0, {"host": "h1", "bundles": []})
