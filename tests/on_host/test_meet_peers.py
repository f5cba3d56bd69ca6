"""The program with which all hosts of a group meet at once."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from muster.on_host import meet_peers
from tests.free_port import free_port

TOKEN = "f" * 32


def all_meet(places: dict[str, str], **low: list[int]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    port = free_port()

    def one(name: str) -> None:
        peers = {peer: {"address": place, "packet": 0} for peer, place in places.items() if peer != name}
        common = {"port": port, "token": TOKEN, "wait": 60.0, "low": low.get(name, [])}
        answers[name] = meet_peers.main({**common, "address": places[name], "peers": peers})

    threads = [threading.Thread(target=one, args=(name,)) for name in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return answers


def test_all_meet_at_once_on_low_and_ephemeral_ports() -> None:
    places, own = {"a": "127.0.0.1", "b": "127.0.0.2", "c": "127.0.0.3"}, free_port()
    started = time.monotonic()
    answers = all_meet(places, a=[own])
    assert time.monotonic() - started < 50, "somebody waits to the end"
    assert {name: set(answer["peers"]) for name, answer in answers.items()} == {
        name: set(places) - {name} for name in places
    }
    ends = [end for answer in answers.values() for end in answer["peers"].values()]
    assert all("error" not in end and not any(why for _, _, why in end["ports"]) for end in ends)
    assert [own, "low", ""] in answers["b"]["peers"]["a"]["ports"]
    assert [kind for _, kind, _ in answers["a"]["peers"]["b"]["ports"]] == ["ephemeral"] * meet_peers.EPHEMERAL


def test_a_port_in_use_is_left_out_of_the_sample() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answers = all_meet({"a": "127.0.0.1", "b": "127.0.0.2"}, a=[taken.getsockname()[1]])
    assert [kind for _, kind, _ in answers["b"]["peers"]["a"]["ports"]] == ["ephemeral"] * meet_peers.EPHEMERAL


def test_a_port_that_does_not_answer_is_told_with_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meet_peers, "TRY_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        request = {"token": TOKEN, "address": "127.0.0.1", "peer": "127.0.0.1"}
        shut, quiet = meet_peers.try_all(request, [(free_port(), "low"), (silent.getsockname()[1], "ephemeral")])
    assert sorted([shut[2], quiet[2]]) == ["[Errno 111] Connection refused", "timed out"]


def test_strangers_learn_nothing_from_the_sample() -> None:
    sample = meet_peers.Sample("127.0.0.1", [], TOKEN.encode())
    try:
        with socket.create_connection(("127.0.0.1", sample.ports[0][0]), 5) as stranger:
            stranger.sendall(b"x" * len(TOKEN))
            assert stranger.recv(1) == b""
    finally:
        sample.close()


@pytest.mark.parametrize("ports", [b"     3[1]", b"     2{}", b"     9[[70000,1", b"-5    ", b"999999" + b"x" * 4096])
def test_a_peer_that_tells_nonsense_costs_its_own_answer(ports: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def lie() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(len(TOKEN))
                connection.sendall(TOKEN.encode() + ports)

        threading.Thread(target=lie, daemon=True).start()
        request = {"token": TOKEN, "address": "127.0.0.1", "peer": "127.0.0.1", "port": server.getsockname()[1]}
        answer = meet_peers.visit({**request, "packet": 0, "wait": 1.0})
    assert answer.get("error") or answer["ports"] == []


def test_a_peer_that_is_not_there_costs_its_own_answer() -> None:
    peers = {"gone": {"address": "127.0.0.9", "packet": 0}}
    request = {"address": "127.0.0.1", "peers": peers, "port": free_port(), "token": TOKEN, "wait": -2.0, "low": []}
    (end,) = meet_peers.main(request)["peers"].values()
    assert "refused" in end["error"]
