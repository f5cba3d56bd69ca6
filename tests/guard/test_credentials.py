"""The unit's credentials: the one form that the control machine ships, and nothing that looks like no key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from muster.guard import credentials


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "guard-key").write_text("k\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return tmp_path


def test_without_an_api_key_the_engine_gets_no_variable(folder: Path) -> None:
    assert credentials.read() == credentials.Credentials("k\n", {})
    assert credentials.read().engine.get(credentials.API_KEY, "") == ""


def test_the_api_key_is_one_of_the_engine_s_variables(folder: Path) -> None:
    (folder / "api-key").write_text("VLLM_API_KEY=se=same\n")
    (folder / "engine-secrets").write_text("HF_TOKEN=t\nS3_SECRET_ACCESS_KEY=$a#b;\n")
    secrets = credentials.read()
    assert secrets.engine[credentials.API_KEY] == "se=same"
    assert secrets.engine == {"VLLM_API_KEY": "se=same", "HF_TOKEN": "t", "S3_SECRET_ACCESS_KEY": "$a#b;"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "sesame\n",
        "VLLM_API_KEY=\n",
        "VLLM_API_KEY=x",
        '# ours\nVLLM_API_KEY="x"\n',
        "VLLM_API_KEY=x y\n",
        "A=x\n",
    ],
)
def test_a_key_in_another_form_keeps_the_guard_from_starting(folder: Path, text: str) -> None:
    (folder / "api-key").write_text(text)
    with pytest.raises(ValueError, match="run the deploy again"):
        credentials.read()


def test_a_unit_without_the_group_s_key_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(OSError, match="guard-key"):
        credentials.read()


def run(script: str, tmp_path: Path, stdin: str | None = None) -> str:
    """What a Python of its own prints, with a file as standard input."""
    (tmp_path / "stdin").write_text(stdin or "")
    with (tmp_path / "stdin").open() as file:
        done = subprocess.run(
            [sys.executable, "-c", f"from muster.guard import credentials\nimport os\n{script}"],
            stdin=file if stdin is not None else subprocess.DEVNULL,
            capture_output=True, text=True, check=True, env={**os.environ, "CREDENTIALS_DIRECTORY": str(tmp_path)},
        )  # fmt: skip
    return done.stdout.strip()


def test_the_groups_key_comes_from_standard_input_and_is_gone_from_there(tmp_path: Path) -> None:
    script = "print(credentials._take_group_key().strip(), os.readlink('/proc/self/fd/0'))"
    assert run(script, tmp_path, "k" * 64 + "\n") == "k" * 64 + " /dev/null"


def test_outside_a_unit_it_is_a_credential(tmp_path: Path) -> None:
    (tmp_path / "guard-key").write_text("k" * 64)
    assert run("print(credentials._take_group_key())", tmp_path) == "k" * 64


def test_memory_is_hidden_until_the_next_program(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\nprint(repr(credentials.hide_memory()), os.stat('/proc/self/mem').st_uid)\n"
        "subprocess.run([sys.executable, '-c', 'import ctypes; print(ctypes.CDLL(None).prctl(3))'], close_fds=True)"
    )
    # Not dumpable, its files in /proc are root's; a program that it starts is dumpable again (1).
    assert run(f"{script}\nprint(__import__('ctypes').CDLL(None).prctl(3))", tmp_path).split() == ["''", "0", "1", "0"]
