"""The HTTP a guard speaks: parses one GET and renders its answer, and asks the engine. No keep-alive."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

from .page_style import POLICY

HEAD_LIMIT = 4096
"""Bytes of a request's head, and of a line of a response's head."""
BODY_LIMIT = 8 * 1024 * 1024
"""Bytes of a response: the metrics of 16 engines are about half a MiB."""

READING_TIMEOUT = 5.0
"""Seconds that a client has to read its whole answer."""

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


_AUTHORIZATION = re.compile(rb"authorization:[ \t]*(bearer|basic)[ \t]+([!-~]{1,2048})[ \t]*\r?\n", re.IGNORECASE)
_KEY = re.compile(rb"[!-~]{1,1024}")

Response = tuple[int, str, str]
"""Status, body, content type."""


class HttpError(Exception):
    """The engine's answer is not HTTP, or too large."""


def request_path(head: bytes) -> tuple[str, str]:
    """Method and path (without its query) of a request's head. Raises ValueError."""
    line = head.split(b"\r\n", 1)[0].decode("ascii")
    method, target, version = line.split(" ")
    if not version.startswith("HTTP/1.") or not target.startswith("/"):
        raise ValueError(line)
    return method, target.split("?", 1)[0]


def response(status: int, body: str, kind: str = "text/plain; charset=utf-8", with_body: bool = True) -> bytes:
    """A whole response."""
    data = body.encode()
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n"
    )
    if kind.startswith("text/html"):
        head += f"Content-Security-Policy: {POLICY}\r\n"
        head += "Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n"
    if status == 401:
        head += 'WWW-Authenticate: Basic realm="muster: the API key is the password", charset="UTF-8"\r\n'
    if status == 405:
        head += "Allow: GET, HEAD\r\n"
    return head.encode() + b"\r\n" + (data if with_body else b"")


def sent_key(header: bytes) -> str:
    """The key of an `Authorization` header line: a bearer token, or the password of a browser; else empty."""
    match = _AUTHORIZATION.fullmatch(header)
    if match is None:
        return ""
    key = match[2]
    if match[1].lower() == b"basic":
        try:
            key = base64.b64decode(key, validate=True).partition(b":")[2]
        except ValueError:
            return ""
    return key.decode("ascii") if _KEY.fullmatch(key) else ""


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection once its peer has read everything, or after READING_TIMEOUT without it.

    A plain close keeps unread bytes, and the connection with them, for as long as the peer likes.
    """
    try:
        with contextlib.suppress(OSError, RuntimeError, asyncio.TimeoutError):
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), READING_TIMEOUT)
    finally:
        writer.transport.abort()


async def ask(
    address: tuple[str, int],
    path: str,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> tuple[int, bytes]:
    """Status and body of one request to `address`; POST of JSON where `body` is given.

    Raises OSError, HttpError, or asyncio.TimeoutError after `timeout` seconds in all.
    """
    return await asyncio.wait_for(_ask(address, path, headers or {}, body), timeout)


async def _ask(
    address: tuple[str, int], path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
) -> tuple[int, bytes]:
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.0", f"Host: {address[0]}:{address[1]}"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    reader, writer = await asyncio.open_connection(*address, limit=HEAD_LIMIT)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await writer.drain()
        status = await _status(reader)
        chunks: list[bytes] = []
        total = 0
        while True:
            chunk = await reader.read(65536)
            if not chunk:
                return status, b"".join(chunks)
            total += len(chunk)
            if total > BODY_LIMIT:
                raise HttpError(f"an answer of more than {BODY_LIMIT} bytes")
            chunks.append(chunk)
    finally:
        writer.close()


async def _status(reader: asyncio.StreamReader) -> int:
    """Read the head of an answer, up to its empty line."""
    try:
        first = (await reader.readline()).split(b" ", 2)
        for _ in range(100):
            if await reader.readline() in (b"\r\n", b"\n", b""):
                return int(first[1])
    except (ValueError, IndexError) as error:
        raise HttpError(f"no HTTP: {error}") from None
    raise HttpError("a head of more than 100 lines")
