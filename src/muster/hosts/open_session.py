"""A host program that is talked to for as long as a run lasts: one line of JSON in, one line out.

It ends when this process ends, when the connection is lost, or when the host hears nothing for a while.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gevent
from gevent.lock import RLock
from gevent.queue import Empty, Queue
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.hosts import programs, ssh_session
from muster.hosts.printable import one_line, printable_data
from muster.hosts.run_programs import connector_arguments
from muster.hosts.ssh_session import OPENING_SECONDS, Broken

SILENCE = 90.0
"""Seconds after which a host takes a silent control machine for gone."""
_EVERY = 15.0
_ANSWER_SECONDS = 120.0
_LIMIT = 1 << 20


def can_open(host: Host) -> bool:
    """Whether a host is reached over SSH; a container, or this machine itself, has no session that could stay open."""
    return ssh_session.client_of(host) is not None


class OpenSession:
    """One host program with an open channel.

    Args:
        state, host: pyinfra's; the host is connected, and `can_open`.
        program: name of a module of `muster.on_host` that reads lines.
        request: what its `main` takes.

    Raises:
        Broken: the host does not begin.
    """

    def __init__(self, state: State, host: Host, program: str, request: programs.Request) -> None:
        text = programs.bundle({program: request}, streams=True).encode()
        become = ssh_session.part_of_command(connector_arguments(state, host))
        self._lines: Queue[str | None] = Queue()
        self._asking, self._errors, self.lost = RLock(), "", ""
        try:
            self._channel = ssh_session.begin(state, host, programs.open_command(len(text)), become)
            self._give(text)
        except Broken:
            raise
        except Exception as error:  # a connection can break in as many ways as there are libraries below
            raise Broken(one_line(f"{type(error).__name__}: {error}")) from None
        self._greenlets = [gevent.spawn(self._read), gevent.spawn(self._read_errors), gevent.spawn(self._beat)]

    def next(self, seconds: float = _ANSWER_SECONDS) -> dict[str, Any]:
        """Return the next line.

        Raises:
            Broken: none came, or no JSON object.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except Empty:
            raise Broken(f"the host has not answered within {seconds:.0f} s") from None
        if line is None:
            self._lines.put(None)
            raise Broken(self.lost or "the session has ended")
        try:
            answer = printable_data(json.loads(line))
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise Broken(f"the host answered with no JSON object: {one_line(line, 200)}")
        return answer

    def ask(self, message: Mapping[str, Any], seconds: float = _ANSWER_SECONDS) -> dict[str, Any]:
        """Send a line and return the answer to it.

        Raises:
            Broken: the session has ended, or gives no answer in time.
        """
        with self._asking:
            try:
                self._channel.sendall(json.dumps(message).encode() + b"\n")
            except OSError as error:
                raise Broken(self.lost or one_line(f"{type(error).__name__}: {error}")) from None
            return self.next(seconds)

    def close(self) -> None:
        """End the program on the host."""
        self.lost = self.lost or "closed"
        self._channel.close()
        gevent.killall(self._greenlets, block=False)

    def _give(self, program: bytes) -> None:
        try:
            with gevent.Timeout(OPENING_SECONDS, Broken(f"the host has not read within {OPENING_SECONDS:.0f} s")):
                self._channel.sendall(program)
        except BaseException:
            self._channel.close()
            raise

    def _read(self) -> None:
        rest, taken = b"", 0
        while (piece := self._received(self._channel.recv)) and (taken := taken + len(piece)) <= _LIMIT:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):  # a login shell may print a banner
                    self._lines.put(line.decode("utf-8", "replace"))
        gevent.sleep(0)  # what the program said last may be under way on the other stream
        self.lost = self.lost or self._errors or "the session with this host has ended"
        self._lines.put(None)

    def _read_errors(self) -> None:
        while piece := self._received(self._channel.recv_stderr):
            lines = (self._errors + piece.decode("utf-8", "replace"))[-4000:].strip().splitlines()
            self._errors = one_line(lines[-1], 2000) if lines else ""

    def _received(self, receive: Any) -> bytes:
        try:
            return bytes(receive(1 << 16))
        except Exception:  # the connection is gone, in one of many ways
            return b""

    def _beat(self) -> None:
        while not self.lost:
            gevent.sleep(_EVERY)
            try:
                self.ask({"do": "alive"})
            except Broken:
                return
