"""Strangers at the guard's control port: what they read, how long they hold a connection, whom they displace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muster.guard import control_port, head_core, http, status
from muster.guard.control_port import ControlPort
from muster.guard.messages import RUN, Failure
from muster.guard.restart_policy import RestartRecord
from tests.guard.test_status import ALL, CONFIG, NOW

LARGE = 4 * 1024 * 1024
"""Bytes of an answer that no kernel buffers whole."""
SECRET = "a prompt that the engine has logged"


def with_port(attack: Callable[[int], Awaitable[None]], body: str = "ok\n") -> None:
    """Run an attack against a control port on loopback, whose answers are `body`."""

    async def run() -> None:
        port = ControlPort(
            "g", b"k" * 32, frozenset(), lambda report: None, str, lambda path, token: (200, body, "text/plain"), 20.0
        )
        await port.listen("127.0.0.1", 0)
        try:
            await attack(port.port)
        finally:
            port.close()

    asyncio.run(run())


def connect(port: int, source: str) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.bind((source, 0))
    made.connect(("127.0.0.1", port))
    return made


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_answers_that_nobody_reads_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READING_TIMEOUT", 0.5)
    monkeypatch.setattr(control_port, "FIRST_LINE_TIMEOUT", 0.5)

    async def attack(port: int) -> None:
        before = descriptors()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(port, f"127.0.{number % 60 + 1}.7")) for number in range(300)]
            for each in clients:
                each.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            held: list[int] = []
            until = time.monotonic() + 20
            while time.monotonic() < until:
                await asyncio.sleep(0.1)
                held.append(descriptors() - before - len(clients))
                if len(held) > 20 and held[-1] <= 2:
                    break
            assert held[-1] <= 2, held
            # asyncio accepts a burst whole; what is too many gives way in the next rounds of the loop.
            settled = next(at for at, number in enumerate(held) if number <= control_port.STRANGERS + 20)
            assert settled <= 2, held
            assert max(held[settled:]) <= control_port.STRANGERS + 20, held

    with_port(attack, "x" * LARGE)


def test_a_load_balancer_is_answered_among_strangers() -> None:
    """It connects, and hundreds of connections of one address come before its request."""

    async def attack(port: int) -> None:
        with contextlib.ExitStack() as stack:
            probe = stack.enter_context(connect(port, "127.0.0.9"))
            await asyncio.sleep(0.1)
            for _ in range(400):
                stack.enter_context(connect(port, "127.0.0.8"))
                await asyncio.sleep(0)
            await asyncio.sleep(0.5)
            probe.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(probe, b"GET /ready HTTP/1.1\r\nHost: head\r\n\r\n")
            answer = await asyncio.wait_for(loop.sock_recv(probe, 4096), 5)
            assert answer.startswith(b"HTTP/1.1 200 OK")

    with_port(attack)


def failed_head() -> head_core.HeadState:
    record = RestartRecord(failures=(Failure("h1", f"vllm said {SECRET}", lines=SECRET * 100, at=NOW - 5),))
    made = head_core.start(CONFIG.group, CONFIG.settings, "g" * 32, record, NOW - 100)
    return replace(made, phase=RUN, ready_at=NOW - 50)


class Guard:
    """What `Answers` needs of a guard for one read."""

    def __init__(self) -> None:
        self.config = CONFIG
        self.ending = ""
        self.head: Any = self
        self.state, self.liveness = failed_head(), ALL
        self.metrics_problem = self.last_refusal = SECRET
        self.refusals: dict[str, Any] = {}
        self.store = self

    def load_start(self) -> None:
        return None

    def explain(self) -> str:
        return SECRET


@pytest.mark.parametrize("path", ["/", "/live", "/ready", "/status", "/metrics"])
@pytest.mark.parametrize("key", ["", "sesame"])
def test_without_the_key_there_are_the_phase_and_numbers(path: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from muster.guard import answers

    monkeypatch.setattr(answers.time, "monotonic", lambda: NOW)
    asked = answers.Answers(Guard(), key, frozenset())  # type: ignore[arg-type]
    code, text, _ = asked.get(path, "")
    assert code == 200
    assert SECRET not in text
    if path != "/metrics":
        names = (">h0", '"h0', ">h1", '"h1', "10.0.0.1", CONFIG.group.digest, CONFIG.group.name, CONFIG.recipe)
        assert not [name for name in names if name in text.replace("<h1>", "")]
    assert len(text) < 8192


def test_a_browser_gets_names_and_reasons_for_the_key_and_no_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    from muster.guard import answers

    monkeypatch.setattr(answers.time, "monotonic", lambda: NOW)
    asked = answers.Answers(Guard(), "sesame", frozenset())  # type: ignore[arg-type]
    for path in ("/", "/live", "/sign-in"):
        code, text, kind = asked.get(path, "sesame")
        assert (code, kind) == (200, "text/html; charset=utf-8")
        assert f"vllm said {SECRET}" in text
        assert SECRET * 2 not in text
        assert asked.get(path, "open")[0] == 401
    # A browser asks for the key once it is refused, and is refused by name alone where there is one.
    assert asked.get("/sign-in", "")[0] == 401
    assert b'WWW-Authenticate: Basic realm="' in http.response(*asked.get("/sign-in", ""))
    assert answers.Answers(Guard(), "", frozenset()).get("/sign-in", "")[0] == 404  # type: ignore[arg-type]


def test_with_the_key_there_are_names_and_reasons_and_still_no_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    from muster.guard import answers

    monkeypatch.setattr(answers.time, "monotonic", lambda: NOW)
    asked = answers.Answers(Guard(), "sesame", frozenset())  # type: ignore[arg-type]
    group = json.loads(asked.get("/status", "sesame")[1])
    assert group["failures"][0]["reason"] == f"vllm said {SECRET}"
    assert "lines" not in group["failures"][0]
    assert asked.get("/status", "open")[0] == 401
    assert asked.get("/ready", "open")[1] == "running\n"
    # Where no key is set none is accepted, the empty one least of all.
    assert json.loads(answers.Answers(Guard(), "", frozenset()).get("/status", "")[1]) == (  # type: ignore[arg-type]
        json.loads(json.dumps(status.numbers(failed_head(), ALL, NOW)))
    )
