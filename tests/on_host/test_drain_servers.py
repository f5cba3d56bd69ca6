"""Servers held out of HAProxy's choice: never all of a model's, and back however the session ends."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from muster.on_host import drain_servers, haproxy_socket, session_lines


class HAProxy:
    """Answers as HAProxy's socket does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **states: str) -> None:
        self.states, self.in_flight, self.cut = states, 2, list[str]()
        monkeypatch.setattr(haproxy_socket, "ask", self.ask)

    def ask(self, _runtime: str, command: str) -> str | None:
        words = command.split()
        if words[:2] == ["set", "server"]:
            self.states[words[2].split("/")[1]] = {"drain": "DRAIN", "ready": "UP"}[words[4]]
        elif words[:2] == ["shutdown", "sessions"]:
            self.cut.append(words[3])
        elif words[1] == "servers":
            bits = {"DRAIN": 8, "MAINT": 1, "DOWN (held out)": 8}
            rows = [f"kimi {name} {bits.get(state, 0)}" for name, state in self.states.items()]
            return "\n".join(["1", "# be_name srv_name srv_admin_state", *rows, ""])
        else:
            rows = [f"kimi,{name},{self.in_flight},{state}" for name, state in self.states.items()]
            return "\n".join(["# pxname,svname,scur,status", "kimi,BACKEND,9,UP", *rows, ""])
        return ""


def hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *lines: str, server: str = "kimi/a"
) -> list[dict[str, object]]:
    monkeypatch.setattr(session_lines, "lines", lambda _silence: iter([{"do": line} for line in lines]))
    drain_servers.main({"do": "hold", "servers": [server], "silence": 1})
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_group_is_out_while_it_is_held_and_back_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edge = HAProxy(monkeypatch, a="UP", b="UP")
    said = hold(monkeypatch, capsys, "alive", "count", "cut", "up", "back", "up")
    assert said == [{"running": True, "alone": []}, {}, {"in_flight": 2}, {}, {"down": ["kimi/a"]}, {}, {"down": []}]
    assert edge.cut == ["kimi/a"]
    assert edge.states == {"a": "UP", "b": "UP"}


def test_a_session_that_breaks_brings_its_servers_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edge = HAProxy(monkeypatch, a="UP", b="UP")
    seen: list[str] = []

    def lines(_silence: float) -> object:
        seen.append(edge.states["a"])
        raise OSError("gone")

    monkeypatch.setattr(session_lines, "lines", lines)
    with pytest.raises(OSError, match="gone"):
        drain_servers.main({"do": "hold", "servers": ["kimi/a"], "silence": 1})
    assert (seen, edge.states["a"]) == (["DRAIN"], "UP")


@pytest.mark.parametrize("other", ["DOWN", "DRAIN", "MAINT"])
def test_the_last_server_of_a_model_is_not_taken_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    edge = HAProxy(monkeypatch, a="UP", b=other)
    assert hold(monkeypatch, capsys)[0] == {"running": True, "alone": ["kimi"]}
    assert edge.states["b"] == other


def test_servers_of_another_edge_are_none_of_this(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edge = HAProxy(monkeypatch, a="UP")
    assert hold(monkeypatch, capsys, "up", server="kimi/z") == [{"running": True, "alone": []}, {"down": []}]
    assert edge.states == {"a": "UP"}


def test_what_is_out_is_named_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = HAProxy(monkeypatch, a="DRAIN", b="UP")
    request = {"servers": ["kimi/a", "kimi/b", "kimi/z"]}
    assert drain_servers.main({"do": "read", **request}) == {
        "drained": ["kimi/a"],
        "up": ["kimi/a", "kimi/b"],
        "alone": ["kimi"],
    }
    assert drain_servers.main({"do": "ready", **request}) == {
        "drained": [],
        "up": ["kimi/a", "kimi/b"],
        "alone": ["kimi"],
    }
    assert edge.states == {"a": "UP", "b": "UP"}


def test_one_that_is_out_and_down_comes_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """HAProxy shows it as down, and as held out only once it is up again: nobody would send it a request then."""
    edge = HAProxy(monkeypatch, a="DOWN (held out)", b="UP")
    request = {"servers": ["kimi/a", "kimi/b"]}
    assert drain_servers.main({"do": "read", **request})["drained"] == ["kimi/a"]
    assert drain_servers.main({"do": "ready", **request})["drained"] == []
    assert edge.states == {"a": "UP", "b": "UP"}


def states_while_held(monkeypatch: pytest.MonkeyPatch, edge: HAProxy, **request: object) -> list[dict[str, str]]:
    seen: list[dict[str, str]] = []

    def lines(_silence: float) -> Iterator[dict[str, str]]:
        seen.append(dict(edge.states))
        return iter([])

    monkeypatch.setattr(session_lines, "lines", lines)
    drain_servers.main({"do": "hold", "silence": 1, **request})
    return seen


def test_a_server_of_the_groups_former_host_is_held_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is to move to another host: the edge knows the group by the one that it has."""
    edge = HAProxy(monkeypatch, a_h0="UP", b_h1="UP")
    assert states_while_held(monkeypatch, edge, servers=["kimi/a_h5"]) == [{"a_h0": "DRAIN", "b_h1": "UP"}]
    assert edge.states == {"a_h0": "UP", "b_h1": "UP"}


def test_a_group_that_stays_is_looked_at(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    edge = HAProxy(monkeypatch, a="UP", b="UP")
    assert states_while_held(monkeypatch, edge, servers=["kimi/a"], stays=True) == [{"a": "UP", "b": "UP"}]
    assert json.loads(capsys.readouterr().out) == {"running": True, "alone": []}
