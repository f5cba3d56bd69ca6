"""What strangers do to the control port, on real sockets, while a real group runs behind it: nothing comes of it."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.guard import protocol
from muster.guard.messages import Report, to_wire

from .loopback import API_KEY, FAST, KEY, Cluster

pytestmark = pytest.mark.slow

SHIPPED = {**FAST, "poll_interval": 2.0, "report_timeout": 4.0, "silence_timeout": 15.0, "proof_fresh": 60.0}
"""The members' timers as they ship; the engine's stay fast, so that the fixture is up in seconds."""


class Peer:
    """A guard's side of the protocol, by hand."""

    def __init__(self, port: int, key: str = KEY, group: str = "g", nonce: str = "a" * 32) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.socket.makefile("rb")
        self.sent = b""
        self.write(protocol.hello(group, nonce))
        answer = self.file.readline()
        self.session = protocol.Session(key.encode(), group, nonce, protocol.read_answer(answer), "member")

    def write(self, data: bytes) -> None:
        self.sent += data
        self.socket.sendall(data)

    def read(self) -> dict[str, Any] | None:
        """The next message, or None when the head hung up."""
        try:
            header = self.file.read(4)
            if len(header) < 4:
                return None
            length = protocol.frame_length(header)
            return self.session.open(self.file.read(protocol.CODE), self.file.read(length))
        except ConnectionError:
            return None

    def say(self, message: dict[str, Any]) -> dict[str, Any] | None:
        with contextlib.suppress(ConnectionError):
            self.write(self.session.seal(message))
        return self.read()

    def report(self, **change: Any) -> dict[str, Any] | None:
        base = Report("h1", "g", "plan-1", "0.32.0", "i", 1)
        return self.say({"kind": "report", "report": {**to_wire(base), **change}})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("abuse"), 3, settings=SHIPPED)
    made.start()
    try:
        made.ready()
        yield made
    finally:
        made.end()


@pytest.fixture(autouse=True)
def undisturbed(cluster: Cluster) -> Iterator[None]:
    """The group, its members and its first generation are the same before and after, and it answers."""
    before = cluster.ready()
    yield
    after = cluster.ready()
    assert after["generation"] == before["generation"]
    assert after["restarts"] == 0
    assert [each["instance"] for each in after["members"]] == [each["instance"] for each in before["members"]]
    assert max(each["heard"] for each in after["members"]) < 15.0
    assert [unit.starts for unit in cluster.units.values()] == [1, 1, 1]


def hangs_up(connection: socket.socket, seconds: float = 30.0) -> bool:
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


MALFORMED = {
    "nothing": b"\n",
    "noise": bytes(range(256)),
    "a line without an end": b"A" * 100_000,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300 + b"\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "zeros": b"\0" * 5000,
    "a request without an end": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50_000,
    "another version": b"MUSTER/99 g " + b"a" * 32 + b"\n",
    "another group": b"MUSTER/1 other " + b"a" * 32 + b"\n",
    "a frame before its hello": struct.pack(">I", 100) + b"x" * 132,
    "an oversized frame": b"MUSTER/1 g " + b"a" * 32 + b"\n" + struct.pack(">I", 2**31) + b"x" * 100_000,
    "a frame without a code": b"MUSTER/1 g " + b"a" * 32 + b"\n" + struct.pack(">I", 2) + b"\0" * 32 + b"{}",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bytes_end_their_connection(cluster: Cluster, name: str) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", cluster.control_port), timeout=10) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(MALFORMED[name])
            assert hangs_up(connection)


def test_a_wrong_key_gets_nowhere(cluster: Cluster) -> None:
    peer = Peer(cluster.control_port, key="f" * 32)
    assert peer.report() is None
    assert "guard key" in cluster.group()["last_refusal"]


def test_a_recorded_session_cannot_be_replayed(cluster: Cluster) -> None:
    first = Peer(cluster.control_port)
    assert first.say({"kind": "verb", "name": "no such verb"}) is not None
    with socket.create_connection(("127.0.0.1", cluster.control_port), timeout=10) as again:
        again.sendall(first.sent)
        answer = again.makefile("rb").readline()
        assert answer.startswith(b"MUSTER/1 ")
        assert hangs_up(again)


def test_a_frame_sent_twice_ends_its_session(cluster: Cluster) -> None:
    peer = Peer(cluster.control_port)
    frame = peer.session.seal({"kind": "verb", "name": "no such verb"})
    peer.write(frame + frame)
    assert peer.read() is not None
    assert peer.read() is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"host": "h9"}, "h9 is no host of group g (h0, h1, h2); deploy the plan that has it"),
        ({"group": "other"}, "h1 belongs to group other; this is g"),
        ({"engine": "0.31.0"}, "h1 has engine 0.31.0, the head h0 has 0.32.0"),
        (
            {"digest": "plan-9"},
            "h1 carries plan plan-9, the head h0 carries plan-1; run the deploy on every host",
        ),
    ],
)
def test_who_has_the_key_and_is_not_of_this_plan_is_refused_by_name(
    cluster: Cluster, change: dict[str, str], reason: str
) -> None:
    answer = Peer(cluster.control_port).report(**change)
    assert answer is not None
    assert (answer["view"]["phase"], answer["view"]["reason"]) == ("refused", reason)


@pytest.mark.parametrize(
    "message",
    [
        {"kind": "report", "report": None},
        {"kind": "report", "report": {}},
        {"kind": "report"},
        {"kind": "view"},
        {},
        {"kind": "report", "report": {**to_wire(Report("h1", "g", "plan-1", "0.32.0", "i", 1)), "seq": 10**400}},
    ],
)
def test_nonsense_of_a_holder_of_the_key_ends_its_session(cluster: Cluster, message: dict[str, Any]) -> None:
    assert Peer(cluster.control_port).say(message) is None


def test_a_holder_of_the_key_that_floods_is_cut_off(cluster: Cluster) -> None:
    peer = Peer(cluster.control_port)
    frames = b"".join(peer.session.seal({"kind": "verb", "name": "x"}) for _ in range(500))
    with contextlib.suppress(ConnectionError):
        peer.write(frames)
    answers = 0
    while peer.read() is not None:
        answers += 1
    assert answers < 100


def test_slow_clients_are_dropped(cluster: Cluster) -> None:
    """A byte now and then, before and after the hello: five seconds in all, not five seconds each."""
    slow = [socket.create_connection(("127.0.0.1", cluster.control_port), timeout=30) for _ in range(20)]
    peer = Peer(cluster.control_port)
    slow.append(peer.socket)
    gone: set[int] = set()
    began = time.monotonic()
    while len(gone) < len(slow):
        assert time.monotonic() - began < 60
        for connection in slow:
            try:
                connection.send(b"M")
            except ConnectionError:
                gone.add(connection.fileno())
        time.sleep(0.3)


def test_a_thousand_idle_connections(cluster: Cluster) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(socket.create_connection(("127.0.0.1", cluster.control_port), timeout=10))
        status, text = cluster.get("/status", API_KEY)
        assert status == 200
        assert max(each["heard"] for each in json.loads(text)["members"]) < 15.0


def flood(port: int, until: float, payload: bytes, count: list[int]) -> None:
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(payload)
            count[0] += 1


@pytest.mark.parametrize(
    "payload", [b"", b"GET /ready HTTP/1.1\r\n\r\n", b"MUSTER/1 g " + b"a" * 32 + b"\n" + b"x" * 4000]
)
def test_a_flood_of_connections(cluster: Cluster, payload: bytes) -> None:
    count = [0]
    until = time.monotonic() + 8.0
    threads = [threading.Thread(target=flood, args=(cluster.control_port, until, payload, count)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count[0] > 100


def test_http_can_change_nothing(cluster: Cluster) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        for path in ("/stop", "/restart", "/resume", "/status"):
            with socket.create_connection(("127.0.0.1", cluster.control_port), timeout=10) as connection:
                connection.sendall(f"{method} {path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
                assert connection.makefile("rb").readline() == b"HTTP/1.1 405 Method Not Allowed\r\n"


def test_the_local_socket_takes_no_nonsense(cluster: Cluster) -> None:
    path = str(cluster.folder / "h0" / "run" / "control.sock")
    assert Path(path).stat().st_mode & 0o777 == 0o600
    for data in (b"\n", b"{}\n", b"[]\n", b'{"verb": 1}\n', b"x" * 10_000, b'{"verb": "stop"}'):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            with contextlib.suppress(OSError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            assert hangs_up(connection)


def guard_rss(cluster: Cluster) -> int:
    """Peak resident MiB of the head's guard."""
    process = cluster.units["h0"].process
    assert process is not None
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) // 1024


def test_after_all_that_the_guard_is_small(cluster: Cluster) -> None:
    assert 0 < guard_rss(cluster) < 40
