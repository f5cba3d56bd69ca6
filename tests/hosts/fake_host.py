"""A host for the runner of host programs: what its SSH channel prints, reads and leaves open is scripted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import gevent
from gevent.event import Event
from pyinfra.api.host import Host
from pyinfra.api.state import State

ENDLESS = object()
"""In place of bytes: a stream that stays open and says nothing more."""


@dataclass
class FakeChannel:
    """One SSH channel, after paramiko's.

    Args:
        stdout, stderr: what the host prints, piece by piece.
        status: exit status; None where the host sends none.
        reads: whether the host reads its standard input.
        begins: whether it confirms the command.
    """

    stdout: Iterable[Any] = ()
    stderr: Iterable[Any] = ()
    status: int | None = 0
    reads: bool = True
    begins: bool = True
    command: str = ""
    received: bytearray = field(default_factory=bytearray)
    closed: Event = field(default_factory=Event)
    status_event: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self._streams: dict[str, Iterator[Any]] = {"stdout": iter(self.stdout), "stderr": iter(self.stderr)}
        self.exit_status = -1 if self.status is None else self.status
        if self.status is not None:
            self.status_event.set()

    def exec_command(self, command: str) -> None:
        self.command = command
        if not self.begins:
            self.closed.wait()

    def recv(self, _count: int) -> bytes:
        return self._next("stdout")

    def recv_stderr(self, _count: int) -> bytes:
        return self._next("stderr")

    def _next(self, stream: str) -> bytes:
        gevent.sleep(0)
        if self.closed.is_set():
            return b""
        piece = next(self._streams[stream], b"")
        if piece is ENDLESS:
            self.closed.wait()
            return b""
        return cast("bytes", piece)

    def sendall(self, piece: bytes) -> None:
        if not self.reads:
            self.closed.wait()
            raise OSError("Socket is closed")
        self.received += piece

    def shutdown_write(self) -> None:
        pass

    def close(self) -> None:
        self.closed.set()


def fake_host(*channels: FakeChannel, **arguments: Any) -> tuple[State, Host]:
    """Return pyinfra's state and host as the runner sees them; each session takes the next channel.

    Args:
        channels: in the order of the sessions.
        arguments: connector arguments of the running operation, such as `_sudo`.
    """
    left = list(channels)
    printed: list[str] = []
    transport = SimpleNamespace(open_session=lambda **_: left.pop(0))
    host = SimpleNamespace(
        name="n1",
        print_prefix="[n1] ",
        connector=SimpleNamespace(client=SimpleNamespace(get_transport=lambda: transport)),
        connector_data={},
        printed=printed,
        log=lambda line, **_: printed.append(line),
        log_styled=lambda line, **_: printed.append(line),
        current_op_global_arguments={"_sudo": False, "_shell_executable": "sh", **arguments},
    )
    state = SimpleNamespace(print_output=False, print_input=False)
    return cast("State", state), cast("Host", host)
