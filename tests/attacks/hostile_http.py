"""A server on loopback that answers each request with bytes of the test's choice, whatever they are."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

COMMIT = "c" * 40
Reply = Callable[[str, dict[str, str]], Iterator[bytes]]


class HostileServer:
    """Answers with `reply(path, headers)`, piece by piece, and notes every request.

    Args:
        reply: gives the bytes of one answer.
    """

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def serve(self) -> None:
        """Serve until the socket is closed."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def close(self) -> None:
        """End."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := connection.recv(65536)):
                    return
                head += piece
            first, *lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            path = first.split(" ")[1]
            self.requests.append((path, headers))
            for piece in self.reply(path, headers):
                connection.sendall(piece)
                self.sent += len(piece)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.2)
            connection.recv(1)


@contextlib.contextmanager
def hostile(reply: Reply) -> Iterator[HostileServer]:
    """Run a server for the length of a test."""
    server = HostileServer(reply)
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield server
    finally:
        server.close()


def plain(body: bytes, status: str = "200 OK", *more: str) -> bytes:
    """Return a proper answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def endless(piece: bytes, most: int = 1 << 30) -> Iterator[bytes]:
    """Give a piece again and again, up to so many bytes."""
    for _ in range(most // len(piece)):
        yield piece


scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=40), st.just("../../etc/x")
)
values = st.recursive(
    scalars, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=8), each), max_leaves=6
)
names = st.sampled_from(
    (
        *("config.json", "a/b", "a", "../../etc/cron.d/x", "/etc/passwd", "a//b", "a/../b", ".", "", "\ud800"),
        *("x\nExecStart=/bin/sh", "\x1b]52;c;x\x07", "a.safetensors.muster-part", ".muster-manifest.json", "ü" * 200),
    )
)
commits = st.sampled_from([COMMIT, "main", "C" * 40, "c" * 39, f"{COMMIT}\n", "../" + COMMIT, "", 7, None, [COMMIT]])
sizes = st.sampled_from([0, 2, -1, 2**70, 1.5, "2", None, True])
digests = st.sampled_from(["0" * 64, "0" * 63, "Z" * 64, "", None, 5])


@st.composite
def hub_metadata(draw: st.DrawFn) -> Any:
    """Return something like the metadata of a hub's revision, wrong in one place or many."""
    files = draw(st.lists(st.fixed_dictionaries({"rfilename": names, "size": sizes}), max_size=3))
    for file in files:
        file["lfs"] = draw(st.none() | st.fixed_dictionaries({"sha256": digests, "size": sizes}) | scalars)
    good = {"sha": COMMIT, "siblings": [{"rfilename": "config.json", "size": 2}]}
    whole = draw(st.sampled_from(["answer", "answer", "answer", "good", "value"]))
    if whole == "value":
        return draw(values)
    return good if whole == "good" else {"sha": draw(commits), "siblings": draw(st.just(files) | values)}


@st.composite
def scope_metadata(draw: st.DrawFn) -> Any:
    """Return something like the metadata of a ModelScope revision."""
    row = st.fixed_dictionaries({"Path": names, "Size": sizes, "Sha256": digests, "Type": st.just("blob") | scalars})
    data = {"Files": draw(st.lists(row, max_size=3) | values), "LatestCommitter": {"Revision": draw(commits)}}
    return draw(st.just({"Data": data}) | st.just({"Data": draw(values)}) | values)


_STATUS = (
    *["HTTP/1.1 200 OK"] * 10,
    *("HTTP/1.1 206 Partial Content", "HTTP/1.1 302 Found", "HTTP/1.1 429 No", "HTTP/1.1 500 No", "HTTP/9.9 200 OK"),
    *("HTTP/1.1 abc", "HTTP/1.1 100 Continue", "", "SSH-2.0-x"),
)
_LENGTHS = ("-1", "1e9", "999999999999999999999", "0")
_HEADERS = (
    *("Transfer-Encoding: chunked", "Location: file:///etc/passwd", "Location: /again", "Location: http://[::1"),
    *("Location: ftp://127.0.0.1/x", "Retry-After: -5", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT"),
    *("Retry-After: never", "Retry-After: nan", "Retry-After: 1e999", "Content-Range: bytes 7-1/2"),
    *("X: " + "y" * 70_000, "no colon", "Content-Encoding: gzip", "Content-Length: 3"),
)


@st.composite
def raw_answers(draw: st.DrawFn, body: st.SearchStrategy[bytes]) -> bytes:
    """Return the bytes of one answer, which may not be HTTP at all."""
    status = draw(st.sampled_from(_STATUS))
    content = draw(body)
    length = draw(st.sampled_from((*[str(len(content))] * 6, str(len(content) + 5), *_LENGTHS)))
    more = draw(st.lists(st.sampled_from(_HEADERS), max_size=3))
    head = "\r\n".join([status, f"Content-Length: {length}", *more]).encode() + b"\r\n\r\n"
    return draw(st.sampled_from([head + content] * 9 + [content, head, b"", b"-1\r\n" + content]))


def as_json(value: Any) -> bytes:
    """Return a value as JSON, with what JSON of Python's own allows too."""
    return json.dumps(value).encode("utf-8", "surrogatepass")
