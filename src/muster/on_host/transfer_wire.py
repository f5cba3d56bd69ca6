"""Frames between two hosts that hold the same pair key: authenticated both ways, sequence-numbered, of bounded size.

Everything that steers a transfer is under HMAC-SHA256; the bytes of a chunk follow bare, for they are checked against
the chunk's own SHA-256. Nothing is encrypted: whoever taps the fabric can read weights, and alter nothing.
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
_HELLO_LIMIT, _FRAME_LIMIT = 1024, 256 << 20
_MAC = 32
_TIMEOUT = 30


class Broken(OSError):
    """The other side is gone, or is not who it should be."""


class Wire:
    """One connection after its handshake.

    Args:
        sock: connected, with a timeout.
        key: of this connection.
        sends, hears: what tells one direction from the other in the HMAC.
    """

    def __init__(self, sock: socket.socket, key: bytes, sends: bytes, hears: bytes) -> None:
        self.sock = sock
        self._key, self._sends, self._hears = key, sends, hears
        self._sent = self._heard = 0

    def send(self, words: dict[str, Any], block: bytes = b"") -> None:
        """Send one frame: words as JSON, and a block of bytes."""
        text = json.dumps(words, separators=(",", ":")).encode()
        head = _HEAD.pack(len(text), len(block))
        mac = self._mac(self._sends, self._sent, head, text, block)
        self._sent += 1
        self.sock.sendall(head + text + block + mac)

    def hear(self) -> tuple[dict[str, Any], bytes]:
        """Return the next frame.

        Raises:
            Broken: closed, too large, or not from the holder of the key.
        """
        head = exactly(self.sock, _HEAD.size)
        sizes = _HEAD.unpack(head)
        if sum(sizes) > _FRAME_LIMIT:
            raise Broken(f"a frame of {sum(sizes)} bytes")
        text, block = exactly(self.sock, sizes[0]), exactly(self.sock, sizes[1])
        mac = self._mac(self._hears, self._heard, head, text, block)
        if not hmac.compare_digest(mac, exactly(self.sock, _MAC)):
            raise Broken("a frame that does not carry this run's key")
        self._heard += 1
        words: dict[str, Any] = json.loads(text)
        return words, block

    def _mac(self, direction: bytes, number: int, head: bytes, text: bytes, block: bytes) -> bytes:
        mac = hmac.new(self._key, direction + struct.pack("!Q", number) + head, hashlib.sha256)
        mac.update(text)
        mac.update(block)
        return mac.digest()

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()


def call(sock: socket.socket, me: str, peer: str, key: bytes) -> Wire:
    """Prove to the peer who I am, and have it prove who it is; return the wire.

    Raises:
        Broken: it does not hold the key that only the two hosts of this run hold.
    """
    mine = os.urandom(16).hex()
    _say(sock, {"from": me, "to": peer, "nonce": mine})
    told = _listen(sock)
    theirs = str(told.get("nonce"))
    if not hmac.compare_digest(str(told.get("proof")), _proof(key, "server", me, peer, mine, theirs)):
        raise Broken(f"{peer} does not hold this run's key")
    _say(sock, {"proof": _proof(key, "client", me, peer, mine, theirs)})
    return Wire(sock, _session(key, mine, theirs), b"c", b"s")


def answer(sock: socket.socket, me: str, keys: dict[str, bytes]) -> tuple[str, Wire]:
    """Hear who calls, prove who I am, and return the caller's name and the wire.

    Args:
        sock: accepted, with a timeout.
        me: this host's name.
        keys: peer -> pair key; nobody else is spoken to.

    Raises:
        Broken: a stranger.
    """
    told = _listen(sock)
    caller, theirs = str(told.get("from")), str(told.get("nonce"))
    if caller not in keys or told.get("to") != me:
        raise Broken("a caller that is no host of this run")
    key, mine = keys[caller], os.urandom(16).hex()
    _say(sock, {"nonce": mine, "proof": _proof(key, "server", caller, me, theirs, mine)})
    proof = str(_listen(sock).get("proof"))
    if not hmac.compare_digest(proof, _proof(key, "client", caller, me, theirs, mine)):
        raise Broken(f"a caller that is not {caller}")
    return caller, Wire(sock, _session(key, theirs, mine), b"s", b"c")


def _proof(key: bytes, role: str, client: str, server: str, *nonces: str) -> str:
    text = json.dumps([role, client, server, *nonces]).encode()
    return hmac.new(key, MAGIC + text, hashlib.sha256).hexdigest()


def _session(key: bytes, *nonces: str) -> bytes:
    return hmac.new(key, MAGIC + b"session" + "".join(nonces).encode(), hashlib.sha256).digest()


def _say(sock: socket.socket, words: dict[str, str]) -> None:
    text = json.dumps(words).encode()
    sock.sendall(MAGIC + struct.pack("!I", len(text)) + text)


def _listen(sock: socket.socket) -> dict[str, Any]:
    head = exactly(sock, len(MAGIC) + 4)
    size = int(struct.unpack("!I", head[len(MAGIC) :])[0])
    if head[: len(MAGIC)] != MAGIC or size > _HELLO_LIMIT:
        raise Broken("a caller that speaks something else")
    try:
        words = json.loads(exactly(sock, size))
    except ValueError:
        raise Broken("a caller that speaks something else") from None
    return words if isinstance(words, dict) else {}


def exactly(sock: socket.socket, size: int) -> bytes:
    """Read exactly so many bytes.

    Raises:
        Broken: the connection ended before.
    """
    buffer = bytearray(size)
    fill(sock, memoryview(buffer))
    return bytes(buffer)


def fill(sock: socket.socket, view: memoryview) -> None:
    """Fill a buffer from a connection; raises as `exactly`."""
    while view:
        size = sock.recv_into(view, min(len(view), 1 << 20))
        if not size:
            raise Broken("the connection ended")
        view = view[size:]


def tune(sock: socket.socket) -> None:
    """Set a connection's deadlines, and let nothing small wait to be sent."""
    # The kernel's own timeouts: a Python timeout would poll before every read, and sendfile knows nothing of it.
    sock.settimeout(None)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _TIMEOUT, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def thread(target: Callable[..., None], *arguments: Any) -> None:
    """Run something beside the rest, until it ends or the program does."""
    threading.Thread(target=target, args=arguments, daemon=True).start()
