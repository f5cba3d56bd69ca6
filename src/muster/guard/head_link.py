"""A member's connection to the head: connects, proves its key, sends reports, receives views, reconnects."""

from __future__ import annotations

import asyncio
import errno
import random
import secrets
from collections.abc import Callable

from . import protocol
from .control_port import read_frame
from .messages import Report, View, to_wire, view_from
from .protocol import ProtocolError, Session

CONNECT = 3.0
"""Seconds to connect and to get an answer: after a partition a fresh attempt beats TCP's own backoff."""
PAUSE = 1.0


class HeadLink:
    """What is sent without a session is lost; the core sends again on `on_linked` and by its timers."""

    def __init__(
        self,
        group: str,
        key: bytes,
        address: tuple[str, int],
        source: str,
        on_view: Callable[[View], None],
        on_linked: Callable[[], None],
        idle: float,
        unanswered: str,
    ) -> None:
        """`source`: this host's address in the plan, the source address if possible: the head reserves slots for it.
        `idle`: seconds without a frame after which the connection is replaced. `unanswered`: the problem while nothing
        answers at the head's address.
        """
        self._group = group
        self._key = key
        self._address = address
        self._source: tuple[str, int] | None = (source, 0)
        self._on_view = on_view
        self._on_linked = on_linked
        self._idle = idle
        self._unanswered = unanswered
        self._session: Session | None = None
        self._heard = False
        """Whether the head has said anything in this session: it proves its key by its first frame."""
        self._writer: asyncio.StreamWriter | None = None
        self._pending_command: asyncio.Future[dict[str, str]] | None = None
        self.problem = "not connected yet"
        """Why there is no session, or empty."""

    def send(self, report: Report) -> None:
        self._write({"kind": "report", "report": to_wire(report)})

    async def command(self, name: str, timeout: float = 5.0) -> dict[str, str]:
        """Forward an operator's command to the head; its `answer` or `error`.

        Raises ConnectionError or asyncio.TimeoutError.
        """
        if self._session is None or self._pending_command is not None:
            raise ConnectionError(self.problem or "another command is in progress")
        self._pending_command = asyncio.get_running_loop().create_future()
        try:
            self._write({"kind": "verb", "name": name})
            return await asyncio.wait_for(self._pending_command, timeout)
        finally:
            self._pending_command = None

    def _write(self, message: dict[str, object]) -> None:
        if self._session is not None and self._writer is not None and not self._writer.transport.is_closing():
            self._writer.write(self._session.seal(message))

    async def run(self) -> None:
        """Keep a session open, forever."""
        while True:
            try:
                await self._talk()
            except asyncio.TimeoutError:  # since Python 3.11 an OSError, without words
                self.problem = "the head does not answer" if self._writer else self._unanswered
            except (ProtocolError, OSError, ValueError, TypeError, EOFError) as error:
                ended = isinstance(error, (EOFError, ConnectionError))
                self.problem = "the head hung up" if ended else str(error) or type(error).__name__
                if ended and self._session is not None and not self._heard:
                    self.problem += " on the first frame: is the guard key the same on every host?"
            finally:
                self._session = None
                if self._writer is not None:
                    self._writer.transport.abort()
                    self._writer = None
            await asyncio.sleep(PAUSE * random.uniform(0.5, 1.0))

    async def _talk(self) -> None:
        limit = protocol.HELLO_LIMIT * 20
        opening = asyncio.open_connection(*self._address, limit=limit, local_addr=self._source)
        try:
            reader, writer = await asyncio.wait_for(opening, CONNECT)
        except OSError as error:
            if self._source is not None and error.errno == errno.EADDRNOTAVAIL:
                self._source = None  # Behind address translation: use whatever source the route gives.
            raise
        self._writer = writer
        ours = secrets.token_hex(16)
        writer.write(protocol.hello(self._group, ours))
        theirs = protocol.read_answer(await asyncio.wait_for(reader.readline(), CONNECT))
        self._session = session = Session(self._key, self._group, ours, theirs, "member")
        self._heard = False
        self._on_linked()
        while True:
            message = await read_frame(reader, session, self._idle)
            self._heard = True
            self.problem = ""
            if message.get("kind") == "view":
                self._on_view(view_from(message["view"]))
            elif (
                message.get("kind") == "done" and self._pending_command is not None and not self._pending_command.done()
            ):
                word = "error" if message.get("failed") else "answer"
                self._pending_command.set_result({word: str(message.get("text"))})
