"""A group out of the edges and back: at its new addresses before requests come, and out no longer whatever fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from muster.deploys import edge_drain
from muster.deploys.edge_drain import EdgeDrain

STATE = cast("Any", None)


class Edges:
    """Two edges with a session each, and what they were told, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuses: str = "", alone: bool = False) -> None:
        self.told: list[str] = []
        told = self.told

        class Session:
            def __init__(self, _state: object, host: Any, _program: str, request: dict[str, Any]) -> None:
                self.edge = host.name
                told.append(f"{self.edge} {'look' if request['stays'] else 'hold'}")

            def next(self) -> dict[str, Any]:
                return {"running": True, "alone": ["kimi"] if alone else []}

            def ask(self, message: dict[str, str]) -> dict[str, Any]:
                told.append(f"{self.edge} {message['do']}")
                return {}

            def close(self) -> None:
                told.append(f"{self.edge} end")

        def move(_state: object, host: Any, servers: dict[str, Any]) -> str:
            told.append(f"{host.name} move {servers['kimi/a_h']['port']}")
            return "no space" if host.name == refuses else ""

        monkeypatch.setattr(edge_drain, "OpenSession", Session)
        monkeypatch.setattr(edge_drain, "move", move)
        monkeypatch.setattr(edge_drain, "can_open", lambda _host: True)

    def drain(self, *moves: str, stays: bool = False) -> EdgeDrain:
        hosts = {name: cast("Any", SimpleNamespace(name=name)) for name in ("edge-0", "edge-1")}
        place = {"address": "198.51.100.1", "port": 8001, "ready_address": "198.51.100.1", "ready_port": 29601}
        return EdgeDrain("a", "kimi", {"kimi/a_h": place}, hosts, 5, frozenset(moves), stays)


def test_a_group_is_followed_before_it_gets_requests_again(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = Edges(monkeypatch)
    drain = edges.drain("edge-0")
    assert drain.take_out(STATE) == ""
    out = ["edge-0 hold", "edge-1 hold", "edge-0 count", "edge-1 count"]
    assert edges.told == out
    assert drain.bring_back(STATE) == ""
    back = ["edge-0 move 8001", "edge-0 back", "edge-1 back", "edge-0 up", "edge-1 up", "edge-0 end", "edge-1 end"]
    assert edges.told[len(out) :] == back
    assert drain.bring_back(STATE) == ""
    assert edges.told == out + back


def test_a_group_that_stayed_is_followed_and_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = Edges(monkeypatch)
    assert edges.drain("edge-1", stays=True).bring_back(STATE) == ""
    assert edges.told == ["edge-1 move 8001", "edge-1 look", "edge-1 back", "edge-1 up", "edge-1 end"]


def test_an_edge_that_does_not_follow_is_named_and_holds_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = Edges(monkeypatch, refuses="edge-1")
    drain = edges.drain("edge-0", "edge-1")
    drain.take_out(STATE)
    assert drain.bring_back(STATE) == "edge-1 does not follow a: no space"
    assert edges.told[-2:] == ["edge-0 end", "edge-1 end"]


def test_a_group_that_alone_is_up_is_not_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = Edges(monkeypatch, alone=True)
    assert edges.drain().take_out(STATE) == "edge-0, edge-1: no other group of kimi is up, and a serves on"
    assert edges.told == ["edge-0 hold", "edge-1 hold", "edge-0 end", "edge-1 end"]
