"""The guard at work: feeds what happens to the pure core, and does what it decides. One thread, one loop."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace

from . import engine_watch, failure_bundle, head_core, member_core, start_checks
from .answers import Control
from .cgroup import Fence, Titles
from .children import Children, Journal
from .config import Config, ConfigError, load
from .head_io import Leader
from .head_link import Link
from .member_core import MemberEvent, MemberState
from .messages import NONE, Failure
from .sd_notify import Notifier
from .state_store import Store
from .xids import KernelLog

TICK = 0.5
SCAN = 2.0
"""Seconds between looks at the engine's processes and at guard.json."""
ALIVE = 5.0
"""Seconds between words to systemd's watchdog."""
AGAIN = 75
"""Exit status of a guard that systemd is to start again (EX_TEMPFAIL)."""


class Agent:
    """One guard, from its start to its exit."""

    def __init__(self, config: Config, path: str, commands: Sequence[Sequence[str]], key: bytes, api_key: str) -> None:
        """`path` is where `config` was read from, looked at again for a changed plan."""
        self.config = config
        self._path = path
        self._key = key
        self._journal = Journal()
        self._notifier = Notifier()
        self.store = Store(config.runtime_directory, config.state_directory)
        instance, previous = secrets.token_hex(8), self.store.take_ended()
        self.member: MemberState = member_core.MemberState(
            config.group, config.settings, config.host, instance, previous=previous
        )
        self._fence = Fence(config.unit, instance)
        self._titles = Titles(config.engine_titles, self._fence.pids)
        secret = {"VLLM_API_KEY": api_key} if api_key else {}
        self.children = Children(list(zip(config.children, commands)), secret, self._journal, self._child_failed)
        self.kernel = KernelLog(config.kernel_log, config.fatal_xids, self.store.load_xids(), self._xid)
        self.control = Control(self)
        self.leader = Leader(self, key, api_key, previous) if config.is_head else None
        self.link: Link | None = None
        self.ending = ""
        """Why this guard ends, once that is decided."""
        self._asked = False
        self._queue: deque[Callable[[], None]] = deque()
        self._busy = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._done: asyncio.Future[int] | None = None

    async def run(self) -> int:
        """Until the core says Exit; the exit status."""
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        loop.add_signal_handler(signal.SIGCHLD, self.children.reap)
        if self.leader is not None:
            self.leader.begin(self._task)
        else:
            self.link = self._new_link()
            self._task("link", self.link.run())
        self._task("control", self.control.serve(self.config.runtime_directory))
        self._task("tick", self._tick())
        self._task("checks", self._check())
        self.say(f"{'head' if self.leader else 'member'} of {self.config.group.name}, instance {self.member.instance}")
        self._notifier.ready()
        try:
            return await self._done
        finally:
            # What is killed from here on ends after the loop, which would say that it cannot be told.
            loop.remove_signal_handler(signal.SIGCHLD)
            for task in self._tasks.values():
                task.cancel()
            if self.leader is not None:
                self.leader.server.close()
            self.control.close()
            self.kernel.close()

    def say(self, text: str) -> None:
        """One line for the journal."""
        self._journal.write(f"muster: {text}\n".encode())

    # Events in, actions out

    def post_member(self, event: MemberEvent) -> None:
        self.post(lambda: self._step(event))

    def post(self, work: Callable[[], None]) -> None:
        """One step at a time: what a step causes waits until it is over."""
        self._queue.append(work)
        if self._busy:
            return
        self._busy = True
        try:
            while self._queue:
                self._queue.popleft()()
        finally:
            self._busy = False

    def _step(self, event: MemberEvent) -> None:
        before = self.member
        state = replace(before, detail=self.children.detail[:2000])
        self.member, actions = member_core.step(state, event, time.monotonic())
        if self.link is not None and (before.phase, before.reason) != (self.member.phase, self.member.reason):
            self.say(f"the head says {self.member.phase} {self.member.reason}".rstrip())
        for action in actions:
            if isinstance(action, member_core.Send):
                if self.leader is not None:
                    self.leader.post(action.report)
                elif self.link is not None:
                    self.link.send(action.report)
            elif isinstance(action, member_core.Start):
                self._start(action.generation)
            elif isinstance(action, member_core.Drain):
                self.say("draining: until nothing is in flight")
                self._task("drain", self._drained())
            else:
                self.exit(action.reason, action.failure, action.deliberate)

    def _start(self, generation: str) -> None:
        if self.kernel.fatal:  # It came between the last check and the head's word.
            self._xid(self.kernel.fatal[0])
            return
        self.say(f"generation {generation} starts")
        work = self.children.start(generation, self.config.group.name, self.member.instance)
        self._task("children", work)

    async def _drained(self) -> None:
        """End the generation once nothing is in flight; the head ends it when that takes too long."""
        await engine_watch.drained(self.config)
        self.post_member(member_core.ChildEnded(Failure("", "nothing is in flight any longer")))

    def _child_failed(self, failed: Failure) -> None:
        if self.ending:
            return  # The guard's own kill.
        self.say(f"{failed.process or 'host'}: {failed.reason}")
        self.post_member(member_core.ChildEnded(failed))

    def _xid(self, line: str) -> None:
        if self.member.child == NONE:
            self.post_member(member_core.Checked(self.kernel.reason()))
        else:
            self._child_failed(Failure("", f"fatal Xid: {line}", lines=line))

    def _leave(self) -> None:
        """TERM: systemd stops the unit."""
        self._asked = True
        self.post_member(member_core.Leave())

    def _new_link(self) -> Link:
        return Link(
            self.config.group.name,
            self._key,
            (self.config.head_address, self.config.control_port),
            self.config.this.address,
            self.post_member,
            lambda: self.post_member(member_core.Linked()),
            self.config.settings.silence_timeout / 2,
        )

    # Time

    def _task(self, name: str, work: Coroutine[None, None, None]) -> None:
        self._tasks[name] = asyncio.get_running_loop().create_task(self._watched(name, work))

    def cancel(self, name: str) -> None:
        if name in self._tasks:
            self._tasks.pop(name).cancel()

    async def _watched(self, name: str, work: Coroutine[None, None, None]) -> None:
        """A part of the guard that ends by an error takes the guard with it: systemd then starts a fresh one."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.exit(f"error in the guard's {name}: {type(error).__name__}: {error}")

    async def _tick(self) -> None:
        scanned = told = float("-inf")
        while True:
            now = time.monotonic()
            self.children.reap()
            self._journal.flush()
            self.kernel.poll()
            self._fence.helpers = {self.kernel.pid}
            if now - scanned >= SCAN:
                scanned = now
                self._scan()
            self.post_member(member_core.Tick())
            if self.leader is not None:
                self.leader.post(head_core.Tick())
            if now - told >= ALIVE:
                told = now
                self._notifier.alive()
            self._notifier.status(self._line())
            await asyncio.sleep(TICK)

    def _line(self) -> str:
        if self.leader is not None:
            return self.leader.line()
        problem = self.link.problem if self.link else ""
        return ", ".join(part for part in (self.member.phase, self.member.reason, self.member.blocked, problem) if part)

    def _scan(self) -> None:
        if self.member.child == NONE:
            try:
                changed = load(self._path).group.digest != self.config.group.digest
            except (OSError, ConfigError):
                return  # Half-written or gone: the deploy is at work, or the next start will say so.
            if changed:
                if self.leader is not None:
                    self.leader.post(head_core.Outdated())
                self.post_member(member_core.Outdated())
        elif not self.member.drained and self.member.leave_by is None:
            gone = self._titles.scan()
            if gone:
                last = self.children.running[-1].lines(15_000) if self.children.running else ""
                self._child_failed(Failure("", f"engine process {gone} is gone", process="vllm", lines=last))

    async def _check(self) -> None:
        while True:
            if not self.kernel.settled():
                await asyncio.sleep(0.1)
                continue
            if self.member.child == NONE and not self.ending:
                reason = await self._blocked()
                self.post_member(member_core.Checked(reason[:2000]))
            await asyncio.sleep(self.config.settings.check_interval)

    async def _blocked(self) -> str:
        left = self._fence.describe(1)
        if left:
            return f"a process of the last generation is left: {left[0]}; reboot the host if it stays"
        port = self.leader.server.problem if self.leader is not None else ""
        reason = port or self.kernel.reason() or self.children.executable_missing()
        return reason or await start_checks.blocked(self.config.checks, self.config.settings.check_timeout)

    # The end

    def exit(self, reason: str, failed: Failure | None = None, deliberate: bool = False) -> None:
        """Kill every child and end this guard; the first reason stands."""
        if self.ending:
            return
        self.ending = reason
        self.say(f"ending: {reason}")
        # Not among the named tasks: nothing cancels it.
        self._last = asyncio.get_running_loop().create_task(self._end(reason, failed, deliberate))

    async def _end(self, reason: str, failed: Failure | None, deliberate: bool) -> None:
        """Kill, keep what is worth reading, and let systemd do the rest. There is no other way out."""
        try:
            for name in ("children", "engine", "checks", "drain"):
                self.cancel(name)
            had = bool(self.children.running)
            processes = self._fence.describe() if had else []
            left = await self._fence.kill(self.config.settings.kill_timeout)
            if left:
                self.say(f"still there after SIGKILL: {left}")
            self.children.reap()
            if had and not deliberate:
                children, kernel = self.children.running, self.kernel.lines
                kept = await failure_bundle.bundle(
                    self.config, self.member, reason, failed, children, processes, kernel
                )
                self.store.save_bundle(failure_bundle.name(self.member.generation), kept)
        except Exception as error:
            self.say(f"error while ending: {type(error).__name__}: {error}")
        finally:
            self._notifier.stopping()
            self._journal.flush()
            if self._done is not None and not self._done.done():
                self._done.set_result(0 if self._asked else AGAIN)
