"""Frames between two hosts that share a pair key: authenticated both ways, numbered, bounded in size.

HMAC-SHA256 covers every message; the bytes of a chunk follow without it, because they are checked against the chunk's
own SHA-256. Nothing is encrypted: someone who taps the fabric can read weights but alter nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

MAGIC = b"muster-weights-1"
_HEAD = struct.Struct("!II")
_HELLO_LIMIT, FRAME_LIMIT = 1024, 1 << 20
_MAC = 32
_TIMEOUT = 30


class BrokenConnection(OSError):
    """The other side is gone, or is not the host it should be."""


class Wire:
    """One connection after its handshake.

    Args:
        sock: connected, with a timeout.
        key: of this connection.
        sends, receives: labels of the two directions in the HMAC.

    `limit` is the largest frame it takes, in bytes; requests are small, and answers as large as the listing makes them.
    """

    def __init__(self, sock: socket.socket, key: bytes, sends: bytes, receives: bytes) -> None:
        self.sock = sock
        self._key, self._sends, self._receives = key, sends, receives
        self._sent = self._received = 0
        self.limit = FRAME_LIMIT

    def send(self, message: dict[str, Any], block: bytes = b"") -> None:
        """Send one frame: a message as JSON, and a block of bytes."""
        text = json.dumps(message, separators=(",", ":")).encode()
        head = _HEAD.pack(len(text), len(block))
        mac = self._mac(self._sends, self._sent, head, text, block)
        self._sent += 1
        self.sock.sendall(head + text + block + mac)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Return the next frame.

        Raises:
            BrokenConnection: closed, too large, or not from the holder of the key.
        """
        head = read_exactly(self.sock, _HEAD.size)
        sizes = _HEAD.unpack(head)
        if sum(sizes) > self.limit:
            raise BrokenConnection(f"a frame of {sum(sizes)} bytes")
        text, block = read_exactly(self.sock, sizes[0]), read_exactly(self.sock, sizes[1])
        mac = self._mac(self._receives, self._received, head, text, block)
        if not hmac.compare_digest(mac, read_exactly(self.sock, _MAC)):
            raise BrokenConnection("a frame that does not carry this run's key")
        self._received += 1
        message: dict[str, Any] = json.loads(text)
        return message, block

    def _mac(self, direction: bytes, number: int, head: bytes, text: bytes, block: bytes) -> bytes:
        mac = hmac.new(self._key, direction + struct.pack("!Q", number) + head, hashlib.sha256)
        mac.update(text)
        mac.update(block)
        return mac.digest()


def call(sock: socket.socket, me: str, peer: str, key: bytes) -> Wire:
    """Shake hands with a peer, each side proving that it holds the key; return the wire.

    Raises:
        BrokenConnection: it does not hold this pair's key.
    """
    mine = os.urandom(16).hex()
    _send_hello(sock, {"from": me, "to": peer, "nonce": mine})
    hello = _receive_hello(sock)
    theirs = str(hello.get("nonce"))
    if not hmac.compare_digest(str(hello.get("proof")), _proof(key, "server", me, peer, mine, theirs)):
        raise BrokenConnection(f"{peer} does not hold this run's key")
    _send_hello(sock, {"proof": _proof(key, "client", me, peer, mine, theirs)})
    return Wire(sock, _session(key, mine, theirs), b"c", b"s")


def answer(sock: socket.socket, me: str, keys: dict[str, bytes]) -> tuple[str, Wire]:
    """Shake hands with a caller; return its name and the wire.

    Args:
        sock: accepted, with a timeout.
        me: this host's name.
        keys: peer -> pair key; callers without one are refused.

    Raises:
        BrokenConnection: a caller that is no host of this run.
    """
    hello = _receive_hello(sock)
    caller, theirs = str(hello.get("from")), str(hello.get("nonce"))
    if caller not in keys or hello.get("to") != me:
        raise BrokenConnection("a caller that is no host of this run")
    key, mine = keys[caller], os.urandom(16).hex()
    _send_hello(sock, {"nonce": mine, "proof": _proof(key, "server", caller, me, theirs, mine)})
    proof = str(_receive_hello(sock).get("proof"))
    if not hmac.compare_digest(proof, _proof(key, "client", caller, me, theirs, mine)):
        raise BrokenConnection(f"a caller that is not {caller}")
    return caller, Wire(sock, _session(key, theirs, mine), b"s", b"c")


def _proof(key: bytes, role: str, client: str, server: str, *nonces: str) -> str:
    text = json.dumps([role, client, server, *nonces]).encode()
    return hmac.new(key, MAGIC + text, hashlib.sha256).hexdigest()


def _session(key: bytes, *nonces: str) -> bytes:
    return hmac.new(key, MAGIC + b"session" + "".join(nonces).encode(), hashlib.sha256).digest()


def _send_hello(sock: socket.socket, hello: dict[str, str]) -> None:
    text = json.dumps(hello).encode()
    sock.sendall(MAGIC + struct.pack("!I", len(text)) + text)


def _receive_hello(sock: socket.socket) -> dict[str, Any]:
    head = read_exactly(sock, len(MAGIC) + 4)
    size = int(struct.unpack("!I", head[len(MAGIC) :])[0])
    if head[: len(MAGIC)] != MAGIC or size > _HELLO_LIMIT:
        raise BrokenConnection("a caller that speaks something else")
    try:
        hello = json.loads(read_exactly(sock, size))
    except ValueError:
        raise BrokenConnection("a caller that speaks something else") from None
    return hello if isinstance(hello, dict) else {}


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read exactly this many bytes.

    Raises:
        BrokenConnection: the connection ended first.
    """
    buffer = bytearray(size)
    fill(sock, memoryview(buffer))
    return bytes(buffer)


def fill(sock: socket.socket, view: memoryview) -> None:
    """Fill a buffer from a connection; raises as `read_exactly`."""
    while view:
        size = sock.recv_into(view, min(len(view), 1 << 20))
        if not size:
            raise BrokenConnection("the connection ended")
        view = view[size:]


def tune(sock: socket.socket) -> None:
    """Set a connection's deadlines, and send small messages at once."""
    # The kernel's own timeouts: a Python timeout would poll before every read, and sendfile would ignore it.
    sock.settimeout(None)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _TIMEOUT, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def thread(target: Callable[..., None], *arguments: Any) -> None:
    """Run a function in a thread that ends with the program."""
    threading.Thread(target=target, args=arguments, daemon=True).start()
