"""Why this host may not start a child: asked again and again while none runs, and told to the member's core."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from typing import Protocol

from . import kept_weights, loader_record, member_core, start_checks
from .cgroup import Fence
from .children import Children
from .config import Config
from .control_port import NOT_YET
from .head_io import Head
from .head_link import HeadLink
from .kernel_log import XidLog
from .member_core import MemberEvent, MemberState
from .messages import NONE
from .restart_policy import STOPPED, RestartRecord
from .state_store import StateStore

READ_TIMEOUT = 2.0
"""Seconds for the record of the loaders."""


def reads_aside(read: Callable[[], str], found: asyncio.Future[str]) -> threading.Thread:
    """Read something in a thread that nobody waits for at the guard's end; `found` gets it."""
    loop = asyncio.get_running_loop()

    def tell(text: str) -> None:
        if not found.done():
            found.set_result(text)

    def work() -> None:
        text = read()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, text)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


class GateServices(Protocol):
    """What it needs of the guard around it."""

    config: Config
    store: StateStore
    member: MemberState
    children: Children
    xid_log: XidLog
    head: Head | None
    link: HeadLink | None
    ending: str

    def post_member(self, event: MemberEvent) -> None: ...

    def exit(self, reason: str, *, deliberate: bool) -> None: ...


class StartGate:
    """The local checks of one guard, and the hold of a member."""

    def __init__(self, guard: GateServices, fence: Fence) -> None:
        self._guard, self._fence = guard, fence
        self.held = not guard.config.is_head and guard.store.is_held()
        """On a member: an operator stopped the group while the head could not be told."""
        self._reader: threading.Thread | None = None

    async def watch(self) -> None:
        """Check for as long as the guard lives."""
        guard = self._guard
        while True:
            if not guard.xid_log.settled() or (guard.head is not None and guard.head.port_problem == NOT_YET):
                await asyncio.sleep(0.1)
                continue
            if self.held:
                await self._pass_stop_on()
            if guard.member.child == NONE and not guard.ending:
                reason = await self._blocked()
                loads = await self._loads()
                guard.post_member(member_core.Checked(reason[:2000], loads))
            await asyncio.sleep(guard.config.settings.check_interval)

    async def _loads(self) -> str:
        """How long each loader would take here. In a thread of its own: the weights may be on a disk that hangs."""
        guard, found = self._guard, asyncio.get_running_loop().create_future()
        if guard.config.loading is None or (self._reader is not None and self._reader.is_alive()):
            return ""
        cached = guard.store.load_cached() if guard.config.page_cache else 0.0
        self._reader = reads_aside(lambda: loader_record.loads(guard.config, cached), found)
        try:
            return await asyncio.wait_for(found, READ_TIMEOUT)
        except asyncio.TimeoutError:
            return ""

    async def _blocked(self) -> str:
        guard, config = self._guard, self._guard.config
        stale = start_checks.stale_unit(os.environ.get(start_checks.DIGEST, ""), config)
        if stale and config.kept_for is not None:
            # No deploy starts this unit anew: the next guard has the unit that systemd has read by then.
            guard.exit(stale, deliberate=True)
        if stale:
            return stale
        if config.kept_for is not None:
            mapped = kept_weights.blocked(config.kept_for)
            if mapped:
                return mapped
        if self.held:
            return f"stopped by an operator; the head {config.group.head} has not heard of it yet"
        left = self._fence.describe(1)
        if left:
            return f"a process of the last generation is still there: {left[0]}; reboot the host if it stays"
        port = guard.head.port_problem if guard.head is not None else ""
        gpus = await start_checks.gpus(config.checks, config.settings.check_timeout)
        guard.xid_log.unused, guard.children.device_env = gpus.unused, gpus.environment
        # The kernel's log first: it says why a GPU is missing.
        reason = port or guard.xid_log.reason() or guard.children.executable_missing()
        reason = reason or start_checks.blocked(config.checks, gpus)
        if not reason and config.kept_weights is not None:
            reason = await kept_weights.unserved(config.kept_weights, len(gpus.chosen) or config.checks.gpus)
        return reason

    def hold(self, held: bool) -> str:
        """On a member: keep a stop for a head that cannot be told, or lift it; why that failed, or empty."""
        problem = self._guard.store.keep_hold(RestartRecord(held=STOPPED if held else ""))
        if not problem:
            self.held = held
        return problem

    async def _pass_stop_on(self) -> None:
        """Tell the head of a stop that it has not heard of; from then on the hold is the head's."""
        link = self._guard.link
        assert link is not None
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            if "error" not in await link.command("stop"):
                self.hold(False)
