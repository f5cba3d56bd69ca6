"""A session that stays open: lines in, lines out, and its end."""

from __future__ import annotations

from typing import Any

import pytest

from muster.hosts import open_session
from muster.hosts.open_session import OpenSession
from muster.hosts.ssh_session import Broken
from tests.hosts.fake_host import ENDLESS, FakeChannel, fake_host


def session(*stdout: Any, **more: Any) -> tuple[OpenSession, FakeChannel]:
    channel = FakeChannel(stdout, **more)
    return OpenSession(*fake_host(channel), "hold_change", {"secret": "sesame"}), channel


def test_lines_come_one_by_one_after_whatever_a_login_shell_prints() -> None:
    there, channel = session(b'Welcome!\n{"sta', b'te": {}}\n{"a": 1}\n', ENDLESS)
    assert there.next() == {"state": {}}
    assert there.ask({"do": "alive"}) == {"a": 1}
    assert channel.received.endswith(b'{"do": "alive"}\n')
    assert "sesame" not in channel.command
    assert not there.lost
    there.close()


def test_its_end_says_why() -> None:
    there, _ = session(stderr=[b"Traceback\nOSError: no space left\n"])
    with pytest.raises(Broken):
        there.next()
    assert there.lost


@pytest.mark.parametrize("line", [b"{nonsense}\n", b"{" + b"x" * 100 + b"\n"])
def test_a_line_that_is_no_object_is_an_error_of_that_host(line: bytes) -> None:
    there, _ = session(line, ENDLESS)
    with pytest.raises(Broken, match="no JSON object"):
        there.next()
    there.close()


def test_the_channel_to_a_host_that_does_not_read_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_session, "OPENING_SECONDS", 0.05)
    channel = FakeChannel(reads=False)
    with pytest.raises(Broken, match="has not read within"):
        OpenSession(*fake_host(channel), "hold_change", {})
    assert channel.closed.is_set()


def test_a_host_that_does_not_answer_is_given_up() -> None:
    there, _ = session(ENDLESS)
    with pytest.raises(Broken, match="has not answered within"):
        there.next(0.05)
    there.close()
