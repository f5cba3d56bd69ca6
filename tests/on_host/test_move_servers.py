"""Servers of an edge at other addresses: in HAProxy's memory and in its file, and of no other group."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.on_host import edge_places, haproxy_socket, move_servers

HEADER = "be_id be_name srv_id srv_name srv_addr srv_fqdn srv_port srv_check_port srv_check_addr"
FILE = """\
defaults
    timeout check 1s
backend kimi
    default-server inter 1s
    server a_h0 198.51.100.1:8000 check addr 198.51.100.1 port 29600 maxconn 64
    server b_h1 198.51.100.2:8000 check addr 198.51.100.2 port 29600 maxconn 64

backend llama
    server a_h0 198.51.100.3:8000 check addr 198.51.100.3 port 29600 maxconn 64
frontend operators
    server kept 198.51.100.3:8000
"""
WAS = ("198.51.100.1", 8000, "198.51.100.1", 29600)
IN_WORDS = "198.51.100.1:8000, asked for /ready at 198.51.100.1:29600"


class HAProxy:
    """Answers as HAProxy's socket does, and may refuse."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuses: str = "-", **places: move_servers.Place) -> None:
        self.places, self.refuses, self.told = dict(places), refuses, list[str]()
        monkeypatch.setattr(haproxy_socket, "ask", self.ask)

    def ask(self, _runtime: str, command: str) -> str | None:
        words = command.split()
        if words == ["show", "servers", "state"]:
            rows = [
                f"3 kimi 1 {name} {address} - {port} {ready_port} {ready_address}"
                for name, (address, port, ready_address, ready_port) in self.places.items()
            ]
            return "\n".join(["1", f"# {HEADER}", *rows, "", ""])
        self.told.append(command)
        if words[3] == self.refuses:
            return "No such server.\n"
        name = words[2].split("/")[1]
        address, port, ready_address, ready_port = self.places[name]
        new = words[4], int(words[6])
        self.places[name] = (*new, ready_address, ready_port) if words[3] == "addr" else (address, port, *new)
        return ""


def place(port: int, ready_port: int, address: str = "198.51.100.1") -> dict[str, object]:
    return {"address": address, "port": port, "ready_address": address, "ready_port": ready_port}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / edge_places.CONFIGURATION).write_text(FILE)
    (tmp_path / edge_places.CONFIGURATION).chmod(0o640)
    return tmp_path


def ask(tree: Path, do: str, **servers: dict[str, object]) -> dict[str, str]:
    named = {f"kimi/{name}": where for name, where in servers.items()}
    elsewhere: dict[str, str] = move_servers.main({"do": do, "servers": named, "tree": str(tree)})["elsewhere"]
    return elsewhere


def test_a_group_is_followed_in_memory_and_in_the_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = HAProxy(monkeypatch, a_h0=WAS, b_h1=WAS)
    assert ask(tree, "read", a_h0=place(8001, 29601)) == {"kimi/a_h0": IN_WORDS}
    assert (edge.told, (tree / edge_places.CONFIGURATION).read_text()) == ([], FILE)
    assert ask(tree, "move", a_h0=place(8001, 29601)) == {"kimi/a_h0": IN_WORDS}
    assert edge.places == {"a_h0": ("198.51.100.1", 8001, "198.51.100.1", 29601), "b_h1": WAS}
    after = FILE.replace("198.51.100.1:8000", "198.51.100.1:8001").replace("100.1 port 29600", "100.1 port 29601")
    assert (tree / edge_places.CONFIGURATION).read_text() == after
    assert (tree / edge_places.CONFIGURATION).stat().st_mode & 0o777 == 0o640
    told = list(edge.told)
    assert (ask(tree, "move", a_h0=place(8001, 29601)), edge.told) == ({}, told)


def test_a_file_that_an_earlier_run_did_not_come_to_is_elsewhere(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = HAProxy(monkeypatch, a_h0=("198.51.100.1", 8001, "198.51.100.1", 29601))
    assert ask(tree, "read", a_h0=place(8001, 29601)) == {"kimi/a_h0": IN_WORDS}
    ask(tree, "move", a_h0=place(8001, 29601))
    assert edge.told == []
    assert ask(tree, "read", a_h0=place(8001, 29601)) == {}


def test_a_head_that_has_moved_gets_the_requests_of_the_former_one(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = HAProxy(monkeypatch, a_h0=WAS, b_h1=WAS)
    ask(tree, "move", a_h5=place(8000, 29600, "198.51.100.5"))
    assert edge.places["a_h0"] == ("198.51.100.5", 8000, "198.51.100.5", 29600)
    assert "server a_h0 198.51.100.5:8000 check addr 198.51.100.5 port" in (tree / "haproxy.cfg").read_text()
    assert ask(tree, "read", a_h5=place(8000, 29600, "198.51.100.5")) == {}


def test_an_edge_that_does_not_run_has_its_file_changed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy_socket, "ask", lambda *_: None)
    assert ask(tree, "move", a_h0=place(8001, 29601)) == {"kimi/a_h0": IN_WORDS}
    assert ask(tree, "read", a_h0=place(8001, 29601)) == {}


def test_an_edge_that_is_not_there_yet_has_nothing_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy_socket, "ask", lambda *_: None)
    assert ask(tmp_path, "read", a_h0=place(8001, 29601)) == {}


@pytest.mark.parametrize("refuses", ["addr", "check-addr"])
def test_an_address_that_haproxy_does_not_take_is_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    HAProxy(monkeypatch, refuses, a_h0=WAS)
    with pytest.raises(OSError, match=r"HAProxy still has kimi/a_h0 at 198\.51\.100\.1:800[01], .*systemctl reload"):
        ask(tree, "move", a_h0=place(8001, 29601))


def test_no_text_but_an_address_comes_to_haproxy(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = HAProxy(monkeypatch, a_h0=WAS)
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        ask(tree, "move", a_h0=place(8001, 29601, "198.51.100.1; shutdown sessions server kimi/b_h1"))
    assert edge.told == []


@pytest.mark.parametrize(
    ("planned", "there", "expected"),
    [
        (["k/a_0"], ["k/a_0", "k/b_0", "l/a_0"], {"k/a_0": "k/a_0"}),
        (["k/a_0", "k/a_1"], ["k/a_0", "k/a_9"], {"k/a_0": "k/a_0", "k/a_9": "k/a_1"}),
        (["k/a_0"], ["k/a_0", "k/a_1", "k/a_2"], {"k/a_0": "k/a_0", "k/a_1": "k/a_0", "k/a_2": "k/a_0"}),
        (["k/a_0", "k/a_1", "k/a_2"], ["k/a_0"], {"k/a_0": "k/a_0"}),
        (["k/a-b_0"], ["k/a_0"], {}),
    ],
    ids=["its own", "another host", "fewer than before", "more than before", "another group"],
)
def test_servers_stand_for_those_of_their_group(planned: list[str], there: list[str], expected: dict[str, str]) -> None:
    assert move_servers.standing_for(planned, there) == expected
