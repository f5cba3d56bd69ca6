"""Weights in the page cache: how much of them is there, and the guard's part in keeping them there.

A load from the page cache takes a fraction of a cold one, but what else the host reads evicts them. So while an engine
serves, the guard lets a program look every few minutes and read what is missing, where memory allows. The guard itself
opens none of the files: a disk that hangs would hold it up.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import page_cache_program
from .cgroup import INSTANCE
from .page_cache_program import gb
from .printable_text import one_line
from .short_commands import describe_exit

INTERVAL = 300.0
"""Seconds between the end of one look and the next."""
MOST = 3600.0
"""Seconds that a look may take with all that it reads; also the longest pause where what was read does not stay."""
GRACE = 30.0
"""Seconds after which a program that has not stopped by itself is killed."""
SILENT = 900.0
"""Seconds into a generation after which an engine that has not said so counts as loaded: not every loader says it."""
_PIPE = 64 << 10
"""Bytes that a pipe holds: more was not said at once."""


class Keeper:
    """Keeps the weights of one directory in the page cache, for one life of the guard."""

    def __init__(
        self,
        directory: str,
        instance: str,
        seen: Callable[[float], None],
        start: Callable[[Sequence[str], Mapping[str, str]], Any] | None = None,
    ) -> None:
        """`directory` is empty where nothing is kept; `seen` hears the share that is there. `start` (tests) starts the
        program.
        """
        self._directory = directory
        # Nothing else of the guard's: neither secrets nor a generation, by which engines' processes are known.
        self._env = {INSTANCE: instance}
        self._seen, self._start = seen, start or _start
        self._process: Any = None
        self._began = 0.0
        self._next = float("-inf")
        self._pause = INTERVAL
        self._output = b""
        self._found: dict[str, Any] = {}
        self._told: set[str] = set()

    def tick(self, now: float, age: float, loaded: bool) -> list[str]:
        """Look after the program, and start it where it is time; lines for the journal.

        Args:
            now: monotonic seconds.
            age: seconds of the generation.
            loaded: the engine has said that its weights are loaded: until then the disk is its own.
        """
        if self._process is not None:
            return self._look(now)
        if self._directory and now >= self._next and (loaded or age >= SILENT):
            argv = [sys.executable, "-I", "-S", page_cache_program.__file__, self._directory, str(MOST)]
            try:
                self._process = self._start(argv, self._env)
            except OSError as error:
                self._next = now + self._pause
                return self._once("start", f"the program that reads weights cannot be started: {error}")
            self._began, self._output, self._found = now, b"", {}
        return []

    def end(self) -> None:
        """Kill the program, if it is there. The fence waits for it."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.send_signal(signal.SIGKILL)
            self._process.poll()

    def close(self) -> None:
        """Keep nothing open of it, when it is dead: the guard may live on."""
        if self._process is not None:
            self._process.poll()
            self._process.stdout.close()
            self._process = None

    def _look(self, now: float) -> list[str]:
        status = self._process.poll()  # before its output is read: what it wrote last is there by then
        lines = [line for said in self._said() for line in self._heard(said)]
        if status is None:
            if now - self._began > MOST + GRACE:
                self.end()
            return lines
        self.close()
        self._next = now + self._pause
        if status not in (0, 1):
            lines += self._once("death", f"the program that reads weights {describe_exit(status)}")
        return lines

    def _said(self) -> list[Any]:
        with contextlib.suppress(OSError):
            self._output = (self._output + os.read(self._process.stdout.fileno(), _PIPE))[-_PIPE:]
        *lines, self._output = self._output.split(b"\n")
        said = []
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                said.append(json.loads(line))
        return said

    def _heard(self, said: Any) -> list[str]:
        try:
            return self._news(said)
        # The engine is the same user, and could write to that pipe.
        except (KeyError, TypeError, ValueError, ArithmeticError):
            return self._once("answer", "what the program that reads weights says is not understood")

    def _news(self, said: Mapping[str, Any]) -> list[str]:
        if "problem" in said:
            return self._once("problem", f"weights are not kept there: {said['problem']}")
        if "there" in said:
            self._found = dict(said)
            self._seen(said["there"] / said["bytes"])
            if said["short"]:
                return self._once("short", f"weights are not kept there: {said['short']}")
            if not said["reads"]:
                self._pause = INTERVAL
                return []
            return [f"page cache: {self._state('are')}, the rest is read"]
        self._seen(said["now"] / self._found["bytes"])
        news = f"{self._state('were')}, the rest was read in {said['seconds']:.0f} s"
        if said["why"]:
            part = f"{gb(said['now'])} are after {said['seconds']:.0f} s, and no more is read: {said['why']}"
            news = f"{self._state('were')}, {part}"
        # What does not stay although there is memory is not read over and over.
        self._pause = min(2 * self._pause, MOST)
        return [one_line(f"page cache: {news}")]

    def _state(self, verb: str) -> str:
        return f"{gb(self._found['there'])} of {gb(self._found['bytes'])} of weights {verb} there"

    def _once(self, what: str, text: str) -> list[str]:
        new = what not in self._told
        self._told.add(what)
        return [one_line(f"page cache: {text}")] if new else []


def _start(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        list(argv),
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return process
