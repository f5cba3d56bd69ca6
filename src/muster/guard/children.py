"""The engine's processes: starts them in order, keeps and forwards their output, notices their ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex

from . import engine_deaths, loader_choice
from .cgroup import GENERATION, INSTANCE
from .engine_deaths import DeathWatch, MarkRemover
from .group_settings import Child, Loading, Probe
from .messages import Failure
from .short_commands import describe_exit, probe_holds
from .standby import Standby

KEPT = 64 * 1024
"""Bytes of each child's output kept for the failure record."""
BACKLOG = 1024 * 1024
"""Bytes that may wait for the journal. Beyond that the oldest are dropped, so that the engine never blocks."""
CHUNK = 64 * 1024
GUARD_ONLY = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY", "JOURNAL_STREAM", "MAINPID")
"""Variables that systemd sets for the guard alone."""


@dataclass
class RunningChild:
    child: Child
    argv: Sequence[str]
    process: subprocess.Popen[bytes]
    death_watch: DeathWatch
    mark_remover: MarkRemover
    output: deque[bytes] = field(default_factory=deque)
    kept: int = 0
    ended: bool = False
    death_reported: bool = False

    def lines(self, limit: int = KEPT) -> str:
        """The end of its output."""
        return b"".join(self.output)[-limit:].decode("utf-8", "replace")


class Journal:
    """The guard's own stdout, never blocking: a stuck journal must not stop the watchdog."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._size = 0
        with contextlib.suppress(OSError):
            os.set_blocking(descriptor, False)

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        while self._size > BACKLOG:
            self._size -= len(self._waiting.popleft())
        self.flush()

    def flush(self) -> None:
        while self._waiting:
            data = self._waiting[0]
            try:
                sent = os.write(self._descriptor, data)
            except BlockingIOError:
                return
            except OSError:
                sent = len(data)
            self._size -= sent
            if sent < len(data):
                self._waiting[0] = data[sent:]
            else:
                self._waiting.popleft()


class Children:
    """The ordered children of one guard."""

    def __init__(
        self,
        plan: Sequence[tuple[Child, Sequence[str]]],
        secrets: Mapping[str, str],
        journal: Journal,
        on_failure: Callable[[Failure], None],
        on_death: Callable[[Failure], None],
        standby: Standby | None = None,
        loading: Loading | None = None,
    ) -> None:
        """`plan` pairs what guard.json says of each child with its command line. `on_failure` hears of a child's end,
        `on_death` of a part of it that is dead by its own words while the child lives on. `standby` was left alive by
        the generation before. `loading` names the child whose command line gets the loader's words.
        """
        self._plan = plan
        self._secrets = secrets
        self._journal = journal
        self._on_failure = on_failure
        self._on_death = on_death
        self._mark = f"<{token_hex(16)}> "
        self.running: list[RunningChild] = []
        self.device_env: Mapping[str, str] = {}
        """Shows the children the group's GPUs alone, where the host has more."""
        self.detail = ""
        self.standby = standby
        self._loading = loading
        self._stands_by = True
        """Whether a process may stand by: not again in a life in which one was of no use."""

    @property
    def loaded(self) -> bool:
        """Whether the engine has said that its weights are loaded."""
        return any(running.death_watch.loads.read is not None for running in self.running)

    def executable_missing(self) -> str:
        """Which command of the plan is missing, or empty."""
        for child, argv in self._plan:
            path = child.env.get("PATH", os.environ.get("PATH", os.defpath))
            if shutil.which(argv[0], path=path) is None:
                return f"{argv[0]} is not in PATH={path}; run the deploy to install the engine"
        return ""

    async def start(self, generation: str, group: str, instance: str, loader: str = "") -> None:
        """Start one after the other, each once its conditions hold. A failed start counts as a child's end."""
        if loader and (self._loading is None or loader not in self._loading.names):
            # Started without it, this host would load differently from the others, which would wait for it.
            reason = f"the head chose the loader {loader[:40]!r}, which this host's plan does not name"
            self._on_failure(Failure("", f"{reason}; run the deploy on every host"))
            return
        for index, (child, argv) in enumerate(self._plan):
            for probe in child.wait:
                await self._wait_until(probe, child, f"{child.name} waits for ")
            try:
                own = {GENERATION: generation, INSTANCE: instance}
                loads = self._loading is not None and child.name == self._loading.process
                self._spawn(child, argv, group, own, loader if loads else "")
            except OSError as error:
                self._on_failure(Failure("", f"{argv[0]} cannot be started: {error}", process=child.name))
                return
            self.detail = f"{child.name} runs"
            if child.ready is not None and index + 1 < len(self._plan):
                await self._wait_until(child.ready, child, f"{child.name} is not ready: ")

    def _spawn(self, child: Child, argv: Sequence[str], group: str, own: Mapping[str, str], loader: str) -> None:
        """`own`: the variables of the generation."""
        program, env = self._program(child, argv, group)
        process, mark, said = None, self._mark, b""
        if child.standby and self.standby is not None:
            process, mark, said = self._take_standby([program, *argv[1:]], env, own, loader)
        argv = loader_choice.words(argv, loader)
        if process is None:
            process = subprocess.Popen(
                argv,
                executable=program,
                env={**env, **engine_deaths.marked(env, mark), **own},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = RunningChild(child, argv, process, DeathWatch(mark), MarkRemover(mark))
        self.running.append(started)
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        os.set_blocking(descriptor, False)
        self._heard(started, said)
        asyncio.get_running_loop().add_reader(descriptor, self._read, started, descriptor)

    def _program(self, child: Child, argv: Sequence[str], group: str) -> tuple[str, dict[str, str]]:
        """The path of a child's program and its environment, but for what differs between generations."""
        env = {name: value for name, value in os.environ.items() if name not in GUARD_ONLY}
        env.update(child.env)
        env.update(self.device_env)
        env.update(self._secrets)
        env["MUSTER_GROUP"] = group
        program = shutil.which(argv[0], path=env.get("PATH", os.defpath))
        if program is None:
            raise FileNotFoundError(2, "not found in PATH", argv[0])
        return program, env

    def _take_standby(
        self, argv: Sequence[str], env: Mapping[str, str], own: Mapping[str, str], loader: str
    ) -> tuple[subprocess.Popen[bytes] | None, str, bytes]:
        """The process that stands by, its mark and what it has said; no process where it is of no use."""
        standby, self.standby = self.standby, None
        assert standby is not None
        if standby.fits(argv, env):
            with contextlib.suppress(OSError):
                process, said = standby.take(own, loader_choice.words((), loader))
                return process, standby.mark, said
        standby.end()
        return None, self._mark, b""

    def stand_by(self, group: str) -> str:
        """Keep a process standing by for the next generation while this one runs; a line for the journal, or empty."""
        if self.standby is None:
            return self._start_standby(group) if self._stands_by else ""
        was_ready, problem = self.standby.ready, self.standby.look()
        if problem:
            self.drop_standby()
            return f"no process stands by for the next generation: {problem}"
        if self.standby.ready and not was_ready:
            return f"process {self.standby.pid} stands by for the next generation"
        return ""

    def _start_standby(self, group: str) -> str:
        for child, argv in self._plan:
            if not child.standby or all(running.child is not child for running in self.running):
                continue
            try:
                program, env = self._program(child, argv, group)
                self.standby = Standby([program, *argv[1:]], env, f"<{token_hex(16)}> ", child.standby)
            except OSError as error:
                self._stands_by = False
                return f"no process stands by for the next generation: {error}"
        return ""

    def drop_standby(self) -> None:
        """End the process that stands by, and start no other in this life."""
        self._stands_by = False
        if self.standby is not None:
            self.standby.end()
            self.standby = None

    def _read(self, running: RunningChild, descriptor: int) -> None:
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._heard(running, data)
        else:
            asyncio.get_running_loop().remove_reader(descriptor)
            self._keep(running, running.mark_remover.rest())

    def _heard(self, running: RunningChild, data: bytes) -> None:
        """Some of its output, with its marks."""
        running.death_watch.feed(data, time.monotonic())
        self._keep(running, running.mark_remover.feed(data))

    def _keep(self, running: RunningChild, data: bytes) -> None:
        if not data:
            return
        self._journal.write(data)
        running.output.append(data)
        running.kept += len(data)
        while running.kept - len(running.output[0]) > KEPT:
            running.kept -= len(running.output.popleft())

    def close(self) -> None:
        """Close their output, when all are dead: the guard may live on."""
        for running in self.running:
            if running.process.stdout is not None:
                asyncio.get_running_loop().remove_reader(running.process.stdout)
                running.process.stdout.close()

    def reap(self) -> None:
        """Notice ends: on SIGCHLD, and at every tick in case a signal was missed."""
        for running in self.running:
            if running.ended:
                continue
            if running.process.poll() is None:
                self._report_death(running)
                continue
            running.ended = True
            for _ in range(KEPT // CHUNK + 1):
                if running.process.stdout is not None:
                    self._read(running, running.process.stdout.fileno())
            name = running.child.name
            failure = Failure(
                "", f"{name} {describe_exit(running.process.returncode)}", process=name, lines=running.lines(15_000)
            )
            self._on_failure(failure)

    def _report_death(self, running: RunningChild) -> None:
        reason = running.death_watch.verdict(time.monotonic())
        if reason and not running.death_reported:
            running.death_reported = True
            self._on_death(Failure("", reason, process=running.child.name, lines=running.lines(15_000)))

    async def _wait_until(self, probe: Probe, child: Child, why: str) -> None:
        name = f"{probe.tcp[0]}:{probe.tcp[1]}" if probe.tcp else " ".join(probe.command)
        began = time.monotonic()
        while not await probe_holds(probe, {**os.environ, **child.env}):
            self.detail = f"{why}{name} ({time.monotonic() - began:.0f} s)"
            await asyncio.sleep(probe.interval)
