"""A process that stands by for the next generation: the engine with its imports done, which touches no GPU.

An engine that starts imports for 15 s and more before it does anything else. So while one serves, the guard starts the
next one's process and lets it import; when the engine's generation ends, that process alone is left alive, and the next
generation's engine is this process, told to go on. It has no generation before that, and is never used twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence

from . import engine_deaths, standby_program
from .standby_program import PLACE, READY, ROOM

KEPT = 16 * 1024
"""Bytes of its output that are kept until it is the engine's."""


class Standby:
    """One such process, from its start until it is taken or ended."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], mark: str, modules: Sequence[str]) -> None:
        """Start it.

        Args:
            argv: the engine's command line; its program is the full path of a Python script.
            env: the engine's environment, but for the variables of a generation and for `mark`.
            mark: what the engine's log records begin with.
            modules: what it imports.

        Raises:
            OSError: it cannot be started, or the program is no Python script.
        """
        self.argv, self.env, self.mark = tuple(argv), dict(env), mark
        interpreter = _interpreter(argv[0])
        self._guard, theirs = socket.socketpair()
        self._guard.setblocking(False)
        self.ready = False
        self._output: deque[bytes] = deque(maxlen=KEPT // 1024)
        number = theirs.fileno()
        try:
            self.process = subprocess.Popen(
                [*interpreter, standby_program.__file__, str(number), ",".join(modules), *argv],
                env={**env, **engine_deaths.marked(env, mark), PLACE: "-" * ROOM},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(number,),
            )
        except OSError:
            self._guard.close()
            raise
        finally:
            theirs.close()
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    @property
    def pid(self) -> int:
        return self.process.pid

    def look(self) -> str:
        """Notice that it is ready, and read what it says; why it is of no use any more, or empty."""
        self._read()
        if self.process.poll() is not None:
            said = b"".join(self._output)[-2000:].decode("utf-8", "replace").strip()
            return f"it ended with status {self.process.returncode}" + (f": {said}" if said else "")
        if not self.ready:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                self.ready = self._guard.recv(64) == READY
        return ""

    def fits(self, argv: Sequence[str], env: Mapping[str, str]) -> bool:
        """Whether it can be this engine."""
        return self.ready and not self.look() and self.argv == tuple(argv) and self.env == dict(env)

    def take(self, variables: Mapping[str, str], words: Sequence[str] = ()) -> tuple[subprocess.Popen[bytes], bytes]:
        """Let it be the engine of a generation; the process, and what it has said so far.

        `words` end its command line, of which `fits` knows nothing: they are the generation's, as `variables` are.

        Raises OSError where it has just ended.
        """
        self._guard.sendall(json.dumps({"variables": dict(variables), "words": list(words)}).encode() + b"\n")
        self._guard.close()
        self._read()
        return self.process, b"".join(self._output)

    def end(self) -> None:
        """Kill it, if it is still there."""
        self._guard.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.poll()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(self.process.stdout.fileno(), 1024):
                self._output.append(data)


def _interpreter(program: str) -> list[str]:
    """The words before a Python script, as the kernel would start it; a script of `sh` has its Python beside it."""
    with open(program, "rb") as file:
        first = file.readline(512)
    words = first[2:].decode("utf-8", "replace").split() if first.startswith(b"#!") else []
    if any("python" in os.path.basename(word) for word in words[:2]):
        return words
    beside = os.path.join(os.path.dirname(program), "python")
    if words and os.access(beside, os.X_OK):
        return [beside]
    raise OSError(f"{program} is no Python script")
