"""`muster sandbox` without a sandbox: help, refusals, the lines it prints."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.cli import main
from muster.sandbox import ask, state_file
from muster.sandbox.state_file import Host, State
from muster.spec.settings import Settings


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("MUSTER_SANDBOX_DIR", str(tmp_path))
    monkeypatch.delenv("MUSTER_SANDBOX", raising=False)
    return CliRunner()


@pytest.mark.parametrize("command", ["up", "down", "status", "shell", "start", "console", "ask", "certificate"])
def test_every_command_shows_an_example(run: CliRunner, command: str) -> None:
    shown = run.invoke(main, ["sandbox", command, "--help"])
    assert shown.exit_code == 0
    assert f"muster sandbox {command}" in shown.output


@pytest.mark.parametrize("command", ["status", "shell", "start", "console", "ask", "certificate"])
def test_a_sandbox_that_is_not_up_is_refused_with_what_to_type(run: CliRunner, command: str) -> None:
    done = run.invoke(main, ["sandbox", command, "--name", "demo"])
    assert done.exit_code == 2
    assert "sandbox 'demo' is not up" in done.output
    assert "muster sandbox up --name demo" in done.output


def test_a_name_that_leaves_the_directory_is_refused(run: CliRunner) -> None:
    done = run.invoke(main, ["sandbox", "down", "--name", "../x"])
    assert done.exit_code == 2
    assert "cannot be used" in done.output


def test_sandboxes_are_listed(run: CliRunner) -> None:
    for name in ("b", "a"):
        state_file.save(state_file.place(name), State(name, "10.77.0.0/24", "/base"))
    assert run.invoke(main, ["sandbox", "list"]).output == "a\nb\n"


def test_the_curl_line_can_be_pasted_into_a_shell() -> None:
    base = ask.endpoint([Host("node0", "10.77.0.11", "H200", 1, 0)])
    words = shlex.split(ask.curl_line(base, "kimi-k2", 1))
    assert words[:2] == ["curl", "http://10.77.0.11:8000/v1/chat/completions"]
    assert "X-data-parallel-rank: 1" in words
    assert json.loads(words[-1])["model"] == "kimi-k2"


def test_what_a_sandbox_is_asked_follows_from_the_plan_of_the_model_that_it_serves() -> None:
    manifests = '{"served_model_name": "a"}\n{"served_model_name": "b", "endpoint_kind": "embeddings"}\n'
    assert [ask.kind_of(manifests, name) for name in ("a", "b", "c")] == ["completions", "embeddings", "completions"]
    assert ask.kind_of('{"served_model_name": "a", "endpoint_kind": "songs"} nonsense', "a") == "completions"
    assert ask.kind_of("[" * 100_000, "a") == "completions"
    words = shlex.split(ask.curl_line("http://10.77.0.11:8000", "b", kind="embeddings"))
    assert words[1] == "http://10.77.0.11:8000/v1/embeddings"
    assert json.loads(words[-1]) == {"model": "b", "input": "Hello"}


def test_a_certificate_comes_with_the_settings_that_name_it(run: CliRunner, tmp_path: Path) -> None:
    host = Host("node0", "10.77.0.11", "H200", 1, 0)
    state_file.save(state_file.place("demo"), State("demo", "10.77.0.0/24", "/base", (host,)))
    done = run.invoke(main, ["sandbox", "certificate", "--name", "demo", "api.example.com"])
    assert done.exit_code == 0, done.output
    given: dict[str, object] = {}
    exec(done.stdout, given)
    settings = Settings(**{key: value for key, value in given.items() if key.startswith("edge_")}).edge
    assert settings.names == ["api.example.com"]
    assert settings.certificate_file == str(tmp_path / "demo" / "edge.pem")
    assert Path(str(settings.certificate_key_file)).is_file()
    wrong = run.invoke(main, ["sandbox", "certificate", "--name", "demo", "a b"])
    assert (wrong.exit_code, "no name of the DNS" in wrong.output) == (2, True)
