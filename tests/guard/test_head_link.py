"""What a member says of a head that it cannot talk to, by where it stops."""

from __future__ import annotations

import asyncio
import socket

import pytest

from muster.guard import head_link
from muster.guard.head_link import HeadLink

UNANSWERED = "nothing answers at the head's address"


def problem(listener: socket.socket, problem: str) -> None:
    """Wait until a link to the listener has this problem."""
    address = listener.getsockname()
    link = HeadLink("g", b"key", address, "127.0.0.1", lambda view: None, lambda: None, 1.0, UNANSWERED)

    async def until_said() -> None:
        running = asyncio.ensure_future(link.run())
        for _ in range(100):
            await asyncio.sleep(0.05)
            if link.problem == problem:
                break
        running.cancel()

    asyncio.run(until_said())
    assert link.problem == problem


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_link, "CONNECT", 0.2)


def test_an_address_that_drops_what_it_is_sent_is_told_from_a_head_that_stands_still() -> None:
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    with full, socket.create_connection(full.getsockname()):  # the kernel drops what follows
        problem(full, UNANSWERED)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        problem(listener, "the head does not answer")
