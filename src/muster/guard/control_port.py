"""The head's control port: the control protocol for guards, read-only HTTP for everybody else. Bounded throughout.

A peer that has not yet proved that it holds the group's key gets one line, five seconds and one of few slots; when all
slots are taken the oldest such connection is dropped, so that a newcomer always gets in. The members' addresses have
slots of their own: a thousand idle connections from elsewhere cost a member nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Any

from . import http, protocol
from .messages import Report, View, report_from, to_wire
from .protocol import ProtocolError, Session

FIRST_LINE_TIMEOUT = 5.0
"""Seconds for the first line, and for the rest of a frame once it has begun."""
STRANGERS = 128
"""Unproved connections from other addresses at one time."""
PEERS = 64
"""Unproved connections from members' addresses at one time."""
FRAMES_PER_SECOND = 20
PENDING = 256 * 1024
"""Unread bytes after which a peer's connection is closed."""


class ControlPort:
    """Listens, checks keys, passes reports on and sends views back."""

    def __init__(
        self,
        group: str,
        key: bytes,
        addresses: frozenset[str],
        on_report: Callable[[Report], View | None],
        on_command: Callable[[str], str],
        on_get: Callable[[str], http.Response],
        idle: float,
    ) -> None:
        """`idle`: seconds without a frame after which a session ends."""
        self._group = group
        self._key = key
        self._addresses = addresses
        self._on_report = on_report
        self._on_command = on_command
        self._on_get = on_get
        self._idle = idle
        self._unproved: dict[asyncio.StreamWriter, bool] = {}
        self._sessions: dict[str, tuple[Session, asyncio.StreamWriter]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.problem = "not listening yet"
        self.last_refusal = ""
        """Why the last peer was refused, for `status`."""

    async def listen(self, address: str, port: int) -> None:
        """Bind the port, retrying for as long as another process has it."""
        while True:
            try:
                self._server = await asyncio.start_server(
                    self._accept, address, port, limit=http.HEAD_LIMIT, backlog=64
                )
            except OSError as error:
                self.problem = f"control port {port} on {address} cannot be bound: {error.strerror or error}"
                await asyncio.sleep(1.0)
            else:
                self.problem = ""
                return

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stop listening and hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    def push(self, host: str, view: View) -> None:
        """Send a view unasked, if that host has a session."""
        session = self._sessions.get(host)
        if session is not None:
            _send(*session, {"kind": "view", "view": to_wire(view)})

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        member = bool(peer) and peer[0] in self._addresses
        same = [other for other, is_member in self._unproved.items() if is_member == member]
        if len(same) >= (PEERS if member else STRANGERS):
            same[0].transport.abort()
            self._unproved.pop(same[0], None)
        self._unproved[writer] = member
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), FIRST_LINE_TIMEOUT)
            if b" HTTP/1." in line:
                await asyncio.wait_for(self._http(line, reader, writer), FIRST_LINE_TIMEOUT)
            else:
                await self._guard(line, reader, writer)
        except ProtocolError as error:
            self.last_refusal = str(error)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError):
            pass
        except asyncio.CancelledError:
            # The port is closing.
            pass
        finally:
            self._unproved.pop(writer, None)
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    async def _http(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = len(line)
        while True:
            header = await reader.readline()
            total += len(header)
            if header in (b"\r\n", b"\n", b"") or total > http.HEAD_LIMIT:
                break
        status, body, kind = 400, "bad request\n", "text/plain; charset=utf-8"
        method = "GET"
        with contextlib.suppress(ValueError):
            method, path = http.request_path(line.rstrip(b"\r\n") + b"\r\n")
            if total > http.HEAD_LIMIT:
                pass
            elif method in ("GET", "HEAD"):
                status, body, kind = self._on_get(path)
            else:
                status, body = 405, "only GET and HEAD\n"
        writer.write(http.response(status, body, kind, with_body=method != "HEAD"))
        await writer.drain()

    async def _guard(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(line) > protocol.HELLO_LIMIT:
            raise ProtocolError("a first line that is too long")
        try:
            theirs = protocol.read_hello(line, self._group)
        except ProtocolError as error:
            writer.write(protocol.refused(str(error)))
            raise
        ours = secrets.token_hex(16)
        session = Session(self._key, self._group, theirs, ours, "head")
        writer.write(protocol.answer(ours))
        host = ""
        timeout = FIRST_LINE_TIMEOUT
        budget, counted = float(FRAMES_PER_SECOND), time.monotonic()
        try:
            while True:
                message = await read_frame(reader, session, timeout)
                self._unproved.pop(writer, None)
                timeout = self._idle
                now = time.monotonic()
                budget = min(budget + (now - counted) * FRAMES_PER_SECOND, FRAMES_PER_SECOND) - 1
                counted = now
                if budget < 0:
                    raise ProtocolError(f"{host or 'a guard'} sends more than {FRAMES_PER_SECOND} frames a second")
                host = self._message(message, host, session, writer)
        finally:
            if host in self._sessions and self._sessions[host][1] is writer:
                del self._sessions[host]

    def _message(self, message: dict[str, Any], host: str, session: Session, writer: asyncio.StreamWriter) -> str:
        kind = message.get("kind")
        if kind == "verb":
            _send(session, writer, {"kind": "done", "text": self._on_command(str(message.get("name")))})
            return host
        if kind != "report" or set(message) != {"kind", "report"}:
            raise ProtocolError("a message of unknown kind")
        try:
            report = report_from(message["report"])
        except (ValueError, TypeError) as error:
            raise ProtocolError(f"a report that cannot be read: {error}") from None
        if host and report.host != host:
            raise ProtocolError(f"{host} speaks as {report.host}")
        view = self._on_report(report)
        if view is None or view.phase != "refused":
            old = self._sessions.get(report.host)
            if old is not None and old[1] is not writer:
                old[1].transport.abort()
            self._sessions[report.host] = (session, writer)
        if view is not None:
            _send(session, writer, {"kind": "view", "view": to_wire(view)})
        return report.host


async def read_frame(reader: asyncio.StreamReader, session: Session, timeout: float) -> dict[str, Any]:
    """The next frame's message. `timeout` is for its first byte; the rest must follow in FIRST_LINE_TIMEOUT seconds.

    Raises ProtocolError, EOFError, OSError or asyncio.TimeoutError; each ends the session.
    """
    first = await asyncio.wait_for(reader.readexactly(1), timeout)
    return await asyncio.wait_for(_rest(first, reader, session), FIRST_LINE_TIMEOUT)


async def _rest(first: bytes, reader: asyncio.StreamReader, session: Session) -> dict[str, Any]:
    length = protocol.frame_length(first + await reader.readexactly(protocol.HEADER.size - 1))
    code = await reader.readexactly(protocol.CODE)
    return session.open(code, await reader.readexactly(length))


def _send(session: Session, writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    if writer.transport.is_closing():
        return
    if writer.transport.get_write_buffer_size() > PENDING:
        writer.transport.abort()
        return
    writer.write(session.seal(message))
