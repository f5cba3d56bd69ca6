"""One guard from start to exit: feeds events to the pure core and carries out its actions. One thread, one loop."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from . import (
    engine_watch,
    events,
    head_core,
    kept_weights,
    life_end,
    member_core,
    stack_dumps,
    status,
)
from .answers import Answers
from .cgroup import Fence, Titles
from .children import Children, Journal
from .config import Config, ConfigError, load
from .credentials import API_KEY
from .event_log import EventLog
from .events import Event
from .head_io import Head
from .head_link import HeadLink
from .kernel_log import XidLog
from .member_core import MemberEvent, MemberState
from .messages import NONE, Failure
from .named_tasks import NamedTasks
from .page_cache import Keeper
from .sd_notify import Notifier
from .standby import Standby
from .start_gate import StartGate
from .state_store import StateStore

TICK = 0.5
PLAN_INTERVAL = 2.0
"""Seconds between looks at guard.json while no child runs."""
WATCHDOG_INTERVAL = 5.0
"""Seconds between messages to systemd's watchdog."""
EXIT_RESTART = 75
"""Exit status that asks systemd for a fresh guard (EX_TEMPFAIL)."""


class Guard:
    """One guard, from its start to its exit."""

    def __init__(
        self,
        config: Config,
        path: str,
        command_lines: Sequence[Sequence[str]],
        key: bytes,
        engine_secrets: Mapping[str, str],
        standby: Standby | None = None,
    ) -> None:
        """`path` is where `config` was read from; it is read again to notice a changed plan.

        `engine_secrets` are variables of the engine's processes; the API key is one of them. `standby` is the process
        that the guard before this one left alive.
        """
        self.config = config
        self._path = path
        self._key = key
        self._journal = Journal()
        self._events = EventLog(config.group.name, config.host, config.group.digest, self.log)
        self._notifier = Notifier()
        self.store = StateStore(config.runtime_directory, config.state_directory)
        instance, previous = secrets.token_hex(8), self.store.take_ended()
        self.member: MemberState = member_core.MemberState(
            config.group, config.settings, config.host, instance, previous=previous
        )
        self._fence = Fence(config.unit, instance)
        if config.kept_for is not None:
            kept_weights.clear(config.kept_for)
        self._titles = Titles(config.engine_titles, self._fence.pids)
        plan = list(zip(config.children, command_lines))
        told = (self._child_failed, self._engine_died)
        self.children = Children(plan, engine_secrets, self._journal, *told, standby, config.loading)
        self.page_cache = Keeper(config.page_cache, instance, self.store.save_cached)
        self.next_life: Standby | None = None
        """Once this guard has ended: what stands by for one more in this process; None: systemd starts the next."""
        self._started = 0.0
        api_key = engine_secrets.get(API_KEY, "")
        users = frozenset({0}) if self._fence.is_cgroup else frozenset({0, os.geteuid()})
        self._api_key = api_key
        self.ending = ""
        """Why this guard ends, once that is decided."""
        self.xid_log = XidLog(config.kernel_log, self.store.load_resumed(), self._xid)
        self.head = Head(self, key, api_key, previous) if config.is_head else None
        self.link: HeadLink | None = None if config.is_head else self._new_link()
        self.start_gate = StartGate(self, self._fence)
        self.answers = Answers(self, api_key, users)
        self.stop_requested = False
        self._queue: deque[Callable[[], None]] = deque()
        self._busy = False
        self.tasks = NamedTasks(self.exit)
        self._done: asyncio.Future[int] | None = None

    async def run(self) -> int:
        """Until the core says Exit; the exit status."""
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        loop.add_signal_handler(signal.SIGCHLD, self.children.reap)
        if self.head is not None:
            self.head.listen(self.answers.command, self.answers.get)
        if self.link is not None:
            self.tasks.start("link", self.link.run())
        self.tasks.start("control", self.answers.serve(self.config.runtime_directory))
        self.tasks.start("tick", self._tick())
        self.tasks.start("checks", self.start_gate.watch())
        self.log(f"{'head' if self.head else 'member'} of {self.config.group.name}, instance {self.member.instance}")
        self._notifier.ready()
        try:
            return await self._done
        finally:
            # Whatever is killed from here on ends after the loop does, which would complain.
            loop.remove_signal_handler(signal.SIGCHLD)
            self.tasks.cancel_all()
            if self.head is not None:
                self.head.close()
            self.answers.close()
            self.xid_log.close()
            self.children.close()
            self.page_cache.close()

    def log(self, text: str) -> None:
        """One line for the journal."""
        self._journal.write(f"muster: {text}\n".encode())

    def tell(self, event: Event) -> None:
        """One event for the journal, with its fields."""
        self._events.write(event)

    # Events in, actions out

    def post_member(self, event: MemberEvent) -> None:
        self.post(lambda: self._step(event))

    def post(self, work: Callable[[], None]) -> None:
        """One step at a time: whatever a step causes waits until that step is over."""
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
        for news in events.of_checks(before.blocked, self.member.blocked):
            self.tell(news)
        if self.link is not None and (before.phase, before.reason) != (self.member.phase, self.member.reason):
            self.log(f"head: {self.member.phase} {self.member.reason}".rstrip())
        for action in actions:
            if isinstance(action, member_core.Send):
                if self.head is not None:
                    self.head.post(action.report)
                elif self.link is not None:
                    self.link.send(action.report)
            elif isinstance(action, member_core.Start):
                self._start(action.generation, action.loader)
            elif isinstance(action, member_core.Drain):
                self.log("draining until nothing is in flight")
                self.tasks.start("drain", self._drained())
            else:
                self.exit(action.reason, action.failure, action.deliberate)

    def _start(self, generation: str, loader: str) -> None:
        fatal = self.xid_log.fatal
        if fatal:  # It came between the last check and the head's `run`.
            self._xid(fatal[0])
            return
        self.tell(events.started(generation))
        if self.config.stack_directory:
            stack_dumps.clear(self.config.stack_directory)
        self._started = time.monotonic()
        starting = self.children.start(generation, self.config.group.name, self.member.instance, loader)
        self.tasks.start("children", starting)
        if self.config.kept_for is not None:
            watch = kept_weights.DaemonWatch(self.config.kept_for, self._serving, self._daemon_lost, self._unwanted)
            self.tasks.start("weights", watch.run())

    def _serving(self) -> None:
        self.children.detail = "weights are kept"
        if self.head is not None:
            self.head.weights_served()

    def _daemon_lost(self, reason: str) -> None:
        lines = self.children.running[-1].lines(15_000) if self.children.running else ""
        self._child_failed(Failure("", reason, process="weights", lines=lines))

    def _unwanted(self, reason: str) -> None:
        if self.head is not None:
            self.head.post(head_core.Unwanted(reason))

    async def _drained(self) -> None:
        """End the generation once nothing is in flight. The head ends it if that takes too long."""
        await engine_watch.drained(self.config, self._api_key)
        self.post_member(member_core.ChildEnded(Failure("", "drained: nothing is in flight")))

    def _child_failed(self, failed: Failure) -> None:
        if self.ending:
            return  # The guard's own kill.
        self.tell(events.failed(failed, self.member.generation))
        self.post_member(member_core.ChildEnded(failed))

    def _engine_died(self, failure: Failure) -> None:
        """A part of the engine is dead by its own words: not while it is being stopped on purpose."""
        if not self.member.drained and self.member.leave_by is None:
            self._child_failed(failure)

    def _xid(self, line: str) -> None:
        if self.member.child == NONE:
            self.post_member(member_core.Checked(self.xid_log.reason()))
        else:
            self._child_failed(Failure("", f"fatal Xid: {line}", lines=line))

    def _leave(self) -> None:
        """SIGTERM: systemd is stopping the unit."""
        self.stop_requested = True
        self.post_member(member_core.Leave())

    def _new_link(self) -> HeadLink:
        return HeadLink(
            self.config.group.name,
            self._key,
            (self.config.head_address, self.config.control_port),
            self.config.this.address,
            self.post_member,
            lambda: self.post_member(member_core.Linked()),
            self.config.settings.silence_timeout / 2,
            status.unanswered(self.config),
        )

    # Time

    async def _tick(self) -> None:
        looked = notified = float("-inf")
        while True:
            now = time.monotonic()
            self.children.reap()
            self._journal.flush()
            self.xid_log.poll()
            life_end.spare(self, self._fence, self.children.standby)
            if self.member.child != NONE:
                self._scan()
                age = now - self._started
                if age >= self.config.settings.standby_after and not self.ending:
                    kept = self.page_cache.tick(now, age, self.children.loaded)
                    for news in filter(None, (self.children.stand_by(self.config.group.name), *kept)):
                        self.log(news)
            if (self.member.child == NONE or self.config.kept_for is not None) and now - looked >= PLAN_INTERVAL:
                looked = now
                self._look_at_plan()
            self.post_member(member_core.Tick())
            if self.head is not None:
                self.head.post(head_core.Tick())
            if now - notified >= WATCHDOG_INTERVAL:
                notified = now
                self._notifier.alive()
            self._notifier.status(self._summary())
            await asyncio.sleep(TICK)

    def _summary(self) -> str:
        if self.head is not None:
            return self.head.summary()
        problem = self.link.problem if self.link else ""
        return ", ".join(part for part in (self.member.phase, self.member.reason, self.member.blocked, problem) if part)

    def _look_at_plan(self) -> None:
        try:
            changed = load(self._path).group.digest != self.config.group.digest
        except (OSError, ConfigError):
            return  # Half-written or gone: a deploy is writing it, or the next start will report it.
        if changed:
            if self.head is not None:
                self.head.post(head_core.Outdated())
                if self.config.kept_for is not None:  # no engine maps them: a deploy has stopped it
                    self.head.post(head_core.Unwanted("the plan of the weights has changed"))
            self.post_member(member_core.Outdated())

    def _scan(self) -> None:
        gone = self._titles.scan()
        if gone:
            last = self.children.running[-1].lines(15_000) if self.children.running else ""
            self._engine_died(Failure("", f"engine process {gone} is gone", process="vllm", lines=last))

    # The end

    def exit(self, reason: str, failure: Failure | None = None, deliberate: bool = False) -> None:
        """Kill every child and end this guard. The first reason counts."""
        if self.ending:
            return
        self.ending = reason
        self.log(f"ending: {reason}")
        # Kept out of the named tasks, so that nothing cancels it.
        self._last = asyncio.get_running_loop().create_task(self._end(reason, failure, deliberate))

    async def _end(self, reason: str, failure: Failure | None, deliberate: bool) -> None:
        """Leave the rest to systemd, or to a guard that has a process standing by. There is no other way out."""
        try:
            self.next_life = await life_end.carry_out(self, self._fence, reason, failure, deliberate)
        except Exception as error:
            self.log(f"error while ending: {type(error).__name__}: {error}")
        finally:
            if self.next_life is None:
                self._notifier.stopping()
            self._journal.flush()
            if self._done is not None and not self._done.done():
                self._done.set_result(0 if self.stop_requested else EXIT_RESTART)
