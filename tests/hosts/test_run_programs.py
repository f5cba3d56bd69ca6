"""One session of host programs: whatever the host does, every program has an answer or an error, and in time."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from muster.hosts import run_programs as runner
from muster.hosts import ssh_session
from muster.hosts.run_programs import run_program, run_programs
from muster.hosts.say import progress_shown_by
from tests.hosts.fake_host import ENDLESS, FakeChannel, fake_host


def ask(channel: FakeChannel, **options: Any) -> dict[str, Any]:
    return dict(run_programs(*fake_host(channel), {"probe_machine": {}, "probe_gpus": {}}, **options))


def test_each_program_has_its_answer() -> None:
    channel = FakeChannel([b'banner\n{"probe_machine": {"clock": 1}, ', b'"probe_gpus": {}}\n'])
    assert ask(channel) == {"probe_machine": {"clock": 1}, "probe_gpus": {}}
    assert b"probe_machine" in channel.received
    assert "probe_machine" not in channel.command


def test_small_packets_do_not_wait_for_the_host() -> None:
    state, host = fake_host(FakeChannel([b'{"probe_machine": {}}\n']))
    with socket.socket() as connection:
        host.connector.client.get_transport().sock = connection  # type: ignore[attr-defined]
        assert run_program(state, host, "probe_machine", {}) == {}
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_program_without_an_answer_has_an_error() -> None:
    answers = run_programs(*fake_host(FakeChannel([b'{"other": {}}\n'])), {"probe_machine": {}})
    assert answers == {"probe_machine": {"error": "probe_machine gave no answer"}}
    assert not answers.lost


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        (FakeChannel([b"bash: fork: no memory\n"], status=254), "last line was: bash: fork: no memory"),
        (FakeChannel([b"{" * 100_000 + b"}\n"]), ""),
        (FakeChannel([b'{"no_python": "Python 3.6.8"}\n']), "found Python 3.6.8"),
        (FakeChannel([b"\xff\xfe\n"], [b"\xc3\n"]), "last line was"),
        (FakeChannel([ENDLESS], reads=False, status=None), "has not ended within 1 s"),
    ],
)
def test_a_session_without_answers_is_lost(channel: FakeChannel, words: str) -> None:
    answers = run_programs(*fake_host(channel), {"probe_machine": {}, "probe_gpus": {}}, seconds=1)
    assert words in answers.lost
    assert answers["probe_machine"] == answers["probe_gpus"] == {"error": answers.lost}
    assert channel.closed.is_set()


def test_a_host_that_prints_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_session, "LIMIT", 1 << 20)
    channel = FakeChannel(iter(lambda: b"x" * 65536, None))
    assert "printed more than 1 MiB" in ask(channel)["probe_gpus"]["error"]


def test_a_host_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_session, "SILENCE", 0.2)
    channel = FakeChannel([b"begun\n", ENDLESS], status=None)
    state, host = fake_host(channel)
    error = run_program(state, host, "transfer_stage", {}, streams=True)["error"]
    assert "printed nothing for" in error


def test_a_host_that_never_begins_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_session, "OPENING_SECONDS", 0.2)
    assert "has not begun within" in ask(FakeChannel(begins=False))["probe_gpus"]["error"]


def test_streamed_lines_are_shown_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(runner, "fail", lambda _host, line: lines.append(f"error {line}"))
    channel = FakeChannel([b"one\ntw", b"o\nlast"], [b"no room\nmore\n"], status=1)
    state, host = fake_host(channel)
    with progress_shown_by(lambda _host, line: lines.append(line)):
        assert run_program(state, host, "install_engine", {}, streams=True) == {"error": "no room"}
    assert sorted(lines) == ["error more", "error no room", "last", "one", "two"]


def test_only_a_host_that_is_asked_to_use_sudo_makes_a_person_type_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("pyinfra.connectors.util.getpass", lambda text: asked.append(text) or "sesame")
    liar = FakeChannel([], [b"sudo: a password is required\n"], status=1)
    assert "no answer" in run_program(*fake_host(liar), "probe_machine", {})["error"]
    assert asked == []
