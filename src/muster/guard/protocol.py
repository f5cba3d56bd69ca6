"""The control protocol between guards, as bytes: pure, no sockets, no clock.

    member -> head   MUSTER/1 <group> <nonce>\\n
    head -> member   MUSTER/1 <nonce>\\n            or   REFUSED <reason>\\n
    then frames both ways: length (4 bytes) | HMAC-SHA256 (32 bytes) | JSON

The session's key is made of both nonces and the group's key, so a frame recorded elsewhere is worthless here. A frame's
code covers its direction and its number within the session: it cannot be reflected, repeated or reordered. The first
frame proves each side to the other; until then only one line of 200 bytes is read. The key never travels. Contents
(phases, digests, log lines) are authenticated but not encrypted.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import struct
from collections.abc import Mapping
from typing import Any

VERSION = 1
HELLO_LIMIT = 200
"""Bytes of a first line."""
FRAME_LIMIT = 64 * 1024
"""Bytes of a frame's JSON."""
CODE = hashlib.sha256().digest_size
HEADER = struct.Struct(">I")
KEY_MINIMUM = 32
"""Characters of a guard key: 32 of hexadecimal are 128 bits."""

_HELLO = re.compile(rb"MUSTER/(\d{1,3}) ([A-Za-z0-9._-]{1,64}) ([0-9a-f]{32})\n")
_ANSWER = re.compile(rb"MUSTER/(\d{1,3}) ([0-9a-f]{32})\n")
_REFUSED = re.compile(rb"REFUSED ([ -~]{1,180})\n")


class ProtocolError(Exception):
    """The peer does not speak this protocol, or not with this key. Its connection is closed."""


def hello(group: str, nonce: str) -> bytes:
    """A member's first line. `nonce` is 32 random hexadecimal characters."""
    return f"MUSTER/{VERSION} {group} {nonce}\n".encode()


def read_hello(line: bytes, group: str) -> str:
    """The member's nonce. Raises ProtocolError with a reason that may be sent to the member."""
    match = _HELLO.fullmatch(line)
    if match is None:
        raise ProtocolError("not a muster guard")
    if int(match[1]) != VERSION:
        raise ProtocolError(
            f"the peer speaks version {match[1].decode()}, this guard version {VERSION}: deploy both hosts"
        )
    if match[2].decode() != group:
        raise ProtocolError(f"this is the head of group {group}, not of {match[2].decode()}")
    return match[3].decode()


def answer(nonce: str) -> bytes:
    """The head's first line."""
    return f"MUSTER/{VERSION} {nonce}\n".encode()


def refused(reason: str) -> bytes:
    """The head's first and last line to a peer outside the group."""
    text = re.sub(r"[^ -~]", "?", reason)[:180]
    return f"REFUSED {text}\n".encode()


def read_answer(line: bytes) -> str:
    """The head's nonce. Raises ProtocolError."""
    match = _REFUSED.fullmatch(line)
    if match is not None:
        raise ProtocolError(f"the head refused: {match[1].decode()}")
    match = _ANSWER.fullmatch(line)
    if match is None or int(match[1]) != VERSION:
        raise ProtocolError(f"the head does not speak version {VERSION}: deploy both hosts")
    return match[2].decode()


class Session:
    """One side of an established session: seals what it sends and opens what it receives, in order."""

    def __init__(self, key: bytes, group: str, member_nonce: str, head_nonce: str, side: str) -> None:
        """`side`: `member` or `head`, whichever this object speaks for."""
        material = f"muster-{VERSION} {group} {member_nonce} {head_nonce}".encode()
        self._key = hmac.new(key, material, hashlib.sha256).digest()
        self._sends, self._receives = (b"m", b"h") if side == "member" else (b"h", b"m")
        self._sent = self._received = 0

    def seal(self, message: Mapping[str, Any]) -> bytes:
        """A frame with this message. Raises ValueError when it exceeds FRAME_LIMIT."""
        body = json.dumps(message, separators=(",", ":")).encode()
        if len(body) > FRAME_LIMIT:
            raise ValueError(f"a message of {len(body)} bytes does not fit a frame of {FRAME_LIMIT}")
        code = self._code(self._sends, self._sent, body)
        self._sent += 1
        return HEADER.pack(len(body)) + code + body

    def open(self, code: bytes, body: bytes) -> dict[str, Any]:
        """The message of the next frame. Raises ProtocolError; the session is then over."""
        if not hmac.compare_digest(code, self._code(self._receives, self._received, body)):
            raise ProtocolError("a frame is not signed with this group's key: is the guard key the same on every host?")
        self._received += 1
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            raise ProtocolError("a frame is not JSON") from None
        if not isinstance(message, dict):
            raise ProtocolError("a frame is not an object")
        return message

    def _code(self, direction: bytes, number: int, body: bytes) -> bytes:
        return hmac.new(self._key, direction + struct.pack(">Q", number) + body, hashlib.sha256).digest()


def frame_length(header: bytes) -> int:
    """Bytes of the JSON that a frame announces. Raises ProtocolError when that is out of bounds."""
    length: int = HEADER.unpack(header)[0]
    if not 2 <= length <= FRAME_LIMIT:
        raise ProtocolError(f"a frame of {length} bytes; at most {FRAME_LIMIT} are allowed")
    return length


def read_key(text: str) -> bytes:
    """The group's key from the text of its credential. Raises ProtocolError when it is too short to be one."""
    key = text.strip()
    if len(key) < KEY_MINIMUM:
        raise ProtocolError(
            f"the guard key has {len(key)} characters, needed {KEY_MINIMUM}: write a new one on every host"
        )
    return key.encode()
