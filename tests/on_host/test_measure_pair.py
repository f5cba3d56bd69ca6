"""One end of a measurement between two hosts."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from muster.on_host import measure_pair
from tests.free_port import free_port


def test_two_ends_measure() -> None:
    common = {"port": free_port(), "token": "f" * 32, "seconds": 0.1, "wait": 10.0}
    answers: dict[str, Any] = {}
    serving = {**common, "role": "serve", "address": "127.0.0.1"}
    server = threading.Thread(target=lambda: answers.update(serve=measure_pair.main(serving)))
    server.start()
    found = measure_pair.main({**common, "role": "call", "address": "127.0.0.1", "peer": "127.0.0.1", "packet": 1500})
    server.join(20)
    assert found["bits"] > 1e6
    assert 0 < found["round_trip"] < 1
    assert answers["serve"]["bytes"] > 0
    assert found["ping"].get("missing") or found["ping"]["arrived"]


def test_stranger_is_no_caller() -> None:
    common = {"port": free_port(), "token": "f" * 32, "seconds": 0.05, "wait": 10.0}
    answers: dict[str, Any] = {}
    serving = {**common, "role": "serve", "address": "127.0.0.1"}
    server = threading.Thread(target=lambda: answers.update(serve=measure_pair.main(serving)))
    server.start()
    stranger = measure_pair.connect({**common, "address": "127.0.0.1", "peer": "127.0.0.1"})
    stranger.sendall(b"GET / HTTP/1.0\r\n\r\n" + b"x" * 64)
    stranger.close()
    found = measure_pair.main({**common, "role": "call", "address": "127.0.0.1", "peer": "127.0.0.1", "packet": 0})
    server.join(20)
    assert "bits" in found
    assert answers["serve"]["bytes"] > 0


def test_a_transfer_that_stalls_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_pair, "STALL", 0.2)
    common = {"port": free_port(), "token": "f" * 32, "seconds": 0.1, "wait": 10.0}
    # Takes the round trips and then nothing more, as a way does that loses full packets.
    monkeypatch.setattr(measure_pair, "take", lambda connection, seconds: (time.sleep(2), {"bytes": 0})[1])
    answers: dict[str, Any] = {}
    serving = {**common, "role": "serve", "address": "127.0.0.1"}
    server = threading.Thread(target=lambda: answers.update(serve=measure_pair.main(serving)))
    server.start()
    found = measure_pair.main({**common, "role": "call", "address": "127.0.0.1", "peer": "127.0.0.1", "packet": 0})
    server.join(20)
    assert found["stalled"]
    assert found["round_trip"] > 0
    assert "bits" not in found


def test_nobody_there_is_said_in_words() -> None:
    found = measure_pair.main(
        {"role": "call", "address": "127.0.0.1", "peer": "127.0.0.1", "port": free_port(), "token": "t", "packet": 0,
         "seconds": 0.1, "wait": 0.2}
    )  # fmt: skip
    assert "refused" in found["error"]
