"""The head's control port: the control protocol for guards, read-only HTTP for everybody else. Bounded throughout.

A peer that has not yet proved that it holds the group's key gets one line, five seconds and one of few slots, and keeps
its slot until it has read its answer or its time is up. When all slots are taken the address with most connections
loses its oldest, so that a newcomer always gets in. The members' addresses and requests for `/ready` have slots of
their own: a thousand connections from elsewhere cost a member nothing, and a load balancer no probe.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from . import http, protocol
from .connection_slots import Slots
from .messages import REFUSED, Report, View, report_from, to_wire
from .protocol import ProtocolError, Session

FIRST_LINE_TIMEOUT = 5.0
"""Seconds for the first line, and for the rest of a frame once it has begun."""
STRANGERS, STRANGERS_PER_ADDRESS = 128, 32
"""Unproved connections from other addresses at one time."""
PEERS, PEERS_PER_ADDRESS = 64, 16
"""Unproved connections from members' addresses at one time."""
PROBES, PROBES_PER_ADDRESS = 64, 8
"""Requests for `/ready` at one time."""
BACKLOG = 512
"""Connections that the kernel holds until they are accepted."""
AT_ONCE = 32
"""Connections accepted in a row: each costs memory until it is refused, which comes after the last of them."""
NOT_YET = "not listening yet"
"""What is wrong with the port before it was first bound."""
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
        on_command: Callable[[str], Mapping[str, str]],
        on_get: Callable[[str, str], http.Response],
        idle: float,
    ) -> None:
        """`on_get` takes a path and the key sent with it. `idle`: seconds without a frame that end a session."""
        self._group = group
        self._key = key
        self._addresses = addresses
        self._on_report = on_report
        self._on_command = on_command
        self._on_get = on_get
        self._idle = idle
        self._strangers = Slots(STRANGERS, STRANGERS_PER_ADDRESS)
        self._peers = Slots(PEERS, PEERS_PER_ADDRESS)
        self._probes = Slots(PROBES, PROBES_PER_ADDRESS)
        self._sessions: dict[str, tuple[Session, asyncio.StreamWriter]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.problem = NOT_YET
        self.last_refusal = ""
        """Why the last peer was refused, for `status`."""
        self.refusals: dict[str, str] = {}
        """Member's address -> why its last connection was closed; a report from there clears it."""

    async def listen(self, address: str, port: int) -> None:
        """Bind the port, retrying for as long as another process has it."""
        while True:
            try:
                self._server = await asyncio.start_server(
                    self._accept, address, port, limit=http.HEAD_LIMIT, backlog=AT_ONCE
                )
            except OSError as error:
                self.problem = f"control port {port} on {address} cannot be bound: {error.strerror or error}"
                await asyncio.sleep(1.0)
            else:
                for listening in self._server.sockets:  # asyncio takes one number for both
                    with listening.dup() as queue:
                        queue.listen(BACKLOG)
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
        address = _address(writer)
        _admit(self._peers if address in self._addresses else self._strangers, writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _release(self, writer: asyncio.StreamWriter) -> None:
        for slots in (self._strangers, self._peers, self._probes):
            slots.release(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), FIRST_LINE_TIMEOUT)
            if b" HTTP/1." in line:
                await asyncio.wait_for(self._http(line, reader, writer), FIRST_LINE_TIMEOUT)
            else:
                await self._guard(line, reader, writer)
        except ProtocolError as error:
            self.last_refusal = str(error)
            if (address := _address(writer)) in self._addresses:
                self.refusals[address] = str(error)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError):
            pass
        except asyncio.CancelledError:
            # The port is closing.
            pass
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await http.hang_up(writer)
            self._release(writer)

    async def _http(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if line.startswith((b"GET /ready ", b"HEAD /ready ")):
            self._release(writer)
            _admit(self._probes, writer)
        total, key = len(line), ""
        while True:
            header = await reader.readline()
            total += len(header)
            if header in (b"\r\n", b"\n", b"") or total > http.HEAD_LIMIT:
                break
            key = http.sent_key(header) or key
        status, body, kind = 400, "bad request\n", "text/plain; charset=utf-8"
        method = "GET"
        with contextlib.suppress(ValueError):
            method, path = http.request_path(line.rstrip(b"\r\n") + b"\r\n")
            if total > http.HEAD_LIMIT:
                pass
            elif method in ("GET", "HEAD"):
                status, body, kind = self._on_get(path, key)
            else:
                status, body = 405, "only GET and HEAD\n"
        writer.write(http.response(status, body, kind, with_body=method != "HEAD"))

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
                self._release(writer)
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
            done = self._on_command(str(message.get("name")))
            # Guards of earlier versions read `text` alone.
            text = done.get("error") or done.get("answer", "")
            _send(session, writer, {"kind": "done", "text": text, "failed": "error" in done})
            return host
        if kind != "report" or set(message) != {"kind", "report"}:
            raise ProtocolError("a message of unknown kind")
        try:
            report = report_from(message["report"])
        except (ValueError, TypeError) as error:
            raise ProtocolError(f"a report that cannot be read: {error}") from None
        if host and report.host != host:
            raise ProtocolError(f"{host} speaks as {report.host}")
        self.refusals.pop(_address(writer), None)
        view = self._on_report(report)
        if view is None or view.phase != REFUSED:
            old = self._sessions.get(report.host)
            if old is not None and old[1] is not writer:
                old[1].transport.abort()
            self._sessions[report.host] = (session, writer)
        if view is not None:
            _send(session, writer, {"kind": "view", "view": to_wire(view)})
        return report.host


def _address(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return str(peer[0]) if peer else ""


def _admit(slots: Slots, writer: asyncio.StreamWriter) -> None:
    for evicted in slots.admit(writer, _address(writer)):
        assert isinstance(evicted, asyncio.StreamWriter)
        evicted.transport.abort()


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
