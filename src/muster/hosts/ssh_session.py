"""One SSH session: a command, its standard input, and what it prints, with bounds on time and size.

pyinfra's own reader waits for ever for a host that does not read its input, copies a line of 300 MB for hours, and
ends with a traceback at bytes that are not UTF-8. A host may do all of these.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import gevent
from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.util import (
    CommandOutput,
    OutputLine,
    execute_command_with_sudo_retry,
    make_unix_command_for_host,
)

LIMIT = 32 << 20
"""Bytes of output; the longest answer, ten failure bundles, is a fifth of it."""
SILENCE = 3600.0
"""Seconds without a byte after which a session without a time limit ends."""
LINE_LIMIT = 4000
"""Characters of one line that are passed on as it comes."""
_PIECE = 1 << 16
_STATUS_SECONDS = 20.0
OPENING_SECONDS = 60.0
"""Seconds in which a host must have begun a command."""
_CONTROL = ("_timeout", "_stdin", "_get_pty", "_success_exit_codes")

OnLine = Callable[[str, bool], None]


class Broken(Exception):
    """A session that ended because the host broke a bound."""


@dataclass
class Output:
    """What a session printed, and its exit status; -1 when none came."""

    status: int = -1
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)


def converse(
    state: State,
    host: Host,
    command: str,
    text: str,
    arguments: Mapping[str, Any],
    *,
    seconds: float | None = None,
    on_line: OnLine | None = None,
) -> Output:
    """Run a command on a host, send it a text, and return what it printed.

    Args:
        state, host: pyinfra's; the host is connected.
        command: of the host's shell.
        text: its standard input.
        arguments: pyinfra's connector arguments: sudo, environment, ...
        seconds: how long it may take; None bounds silence only.
        on_line: called with each line as it comes, and whether it is of standard error.

    Raises:
        Broken: the host sent too much, or nothing for too long.
        Exception: whatever the connection raises.
    """
    become = part_of_command(arguments)
    if client_of(host) is None:  # no SSH: a container or this machine itself
        succeeded, output = host.run_shell_command(
            StringCommand(command), print_output=False, **become, _stdin=[text], _timeout=seconds
        )
        _pass_on(output, on_line)
        return Output(0 if succeeded else 1, output.stdout_lines, output.stderr_lines)

    def execute() -> tuple[int, CommandOutput]:
        # The command line is made again for the second try, which has a password.
        conversation = _Conversation(begin(state, host, command, become), on_line)
        output = conversation.run(text.encode(), seconds)
        kinds = [*(("stdout", line) for line in output.stdout), *(("stderr", line) for line in output.stderr)]
        return output.status, CommandOutput([OutputLine(kind, line) for kind, line in kinds])

    # Only a host that is asked to use sudo may make a person type the password for it.
    if become.get("_sudo"):
        status, output = execute_command_with_sudo_retry(host, cast("Any", become), execute)
    else:
        status, output = execute()
    return Output(status, output.stdout_lines, output.stderr_lines)


def client_of(host: Host) -> Any:
    """Return paramiko's client; None for a host that is not reached over SSH: a container, or this machine itself."""
    return getattr(host.connector, "client", None)


def part_of_command(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the connector arguments that make a command line: sudo, environment, ..."""
    return {key: value for key, value in arguments.items() if key not in _CONTROL}


def begin(state: State, host: Host, command: str, become: Mapping[str, Any]) -> Any:
    """Begin a command in a channel of its own, and return the channel.

    Args:
        state, host: pyinfra's; the host is connected over SSH.
        command: of the host's shell.
        become: as `part_of_command` returns it.

    Raises:
        Broken: the host does not confirm the command; paramiko alone would wait for ever.
        Exception: whatever the connection raises.
    """
    line = make_unix_command_for_host(state, host, StringCommand(command), **become).get_raw_value()
    transport = client_of(host).get_transport()
    _send_at_once(transport)
    channel = transport.open_session(timeout=OPENING_SECONDS)
    try:
        with gevent.Timeout(OPENING_SECONDS, Broken(f"the host has not begun within {OPENING_SECONDS:.0f} s")):
            channel.exec_command(line)
    except BaseException:
        channel.close()
        raise
    return channel


def _send_at_once(transport: Any) -> None:
    """Have small packets sent before the host has acknowledged the last ones: waiting costs 50 ms a session."""
    with contextlib.suppress(AttributeError, OSError):  # behind a jump host there is no socket
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _pass_on(output: CommandOutput, on_line: OnLine | None) -> None:
    for line in output.combined_lines:
        if on_line is not None:
            on_line(line.line[:LINE_LIMIT], line.buffer_name == "stderr")


class _Conversation:
    """One channel, from the command that has begun to its end."""

    def __init__(self, channel: Any, on_line: OnLine | None) -> None:
        self._channel, self._on_line = channel, on_line
        self._taken, self._heard = 0, time.monotonic()

    def run(self, text: bytes, seconds: float | None) -> Output:
        """Do it; raises as `converse`."""
        readers = [gevent.spawn(self._read, self._channel.recv, is_error=False)]
        readers.append(gevent.spawn(self._read, self._channel.recv_stderr, is_error=True))
        greenlets = [*readers, gevent.spawn(self._write, text)]
        try:
            self._await(readers, None if seconds is None else time.monotonic() + seconds, seconds)
            self._channel.status_event.wait(_STATUS_SECONDS)
            return Output(int(self._channel.exit_status), *(reader.get() for reader in readers))
        finally:
            self._channel.close()
            gevent.killall(greenlets, block=False)

    def _await(self, readers: list[Any], deadline: float | None, seconds: float | None) -> None:
        while True:
            now = time.monotonic()
            end = self._heard + SILENCE if deadline is None else deadline
            if len(gevent.wait(readers, timeout=max(0.0, end - now))) == len(readers):
                break
            if deadline is not None:
                raise Broken(f"the host's program has not ended within {seconds:.0f} s")
            if time.monotonic() - self._heard >= SILENCE:
                raise Broken(f"the host's program has printed nothing for {SILENCE:.0f} s")
        if self._taken > LIMIT:
            raise Broken(f"the host's program printed more than {LIMIT >> 20} MiB")

    def _read(self, receive: Callable[[int], bytes], *, is_error: bool) -> list[str]:
        """Return the lines of one stream; ends early when both together are too long."""
        pieces: list[bytes] = []
        line = _Line(self._on_line, is_error)
        while piece := receive(_PIECE):
            self._heard = time.monotonic()
            self._taken += len(piece)
            if self._taken > LIMIT:
                self._channel.close()
                break
            pieces.append(piece)
            line.feed(piece)
        line.end()
        lines = b"".join(pieces).decode("utf-8", "replace").split("\n")
        return [text.rstrip("\r") for text in (lines if lines[-1] else lines[:-1])]

    def _write(self, text: bytes) -> None:
        try:
            for start in range(0, len(text), _PIECE):
                self._channel.sendall(text[start : start + _PIECE])
            self._channel.sendall(b"" if text.endswith(b"\n") else b"\n")
            self._channel.shutdown_write()
        except OSError:
            pass  # the program has ended without reading all; its status and its words say why


class _Line:
    """Lines of one stream, passed on as they come; what is too long is cut."""

    def __init__(self, on_line: OnLine | None, is_error: bool) -> None:
        self._on_line, self._is_error, self._rest = on_line, is_error, b""

    def feed(self, piece: bytes) -> None:
        if self._on_line is None:
            return
        *whole, rest = (self._rest + piece).split(b"\n")
        for line in whole:
            self._show(line)
        self._rest = rest[: LINE_LIMIT * 4]

    def end(self) -> None:
        if self._on_line is not None and self._rest:
            self._show(self._rest)

    def _show(self, line: bytes) -> None:
        if self._on_line is not None:
            self._on_line(line.decode("utf-8", "replace").rstrip("\r")[:LINE_LIMIT], self._is_error)
