"""The end of one guard's life: every process of its generation killed, the failure kept, and what may outlive it."""

from __future__ import annotations

from typing import Protocol

from . import failure_bundle
from .cgroup import Fence
from .children import Children
from .config import Config
from .kernel_log import XidLog
from .member_core import MemberState
from .messages import Failure
from .named_tasks import NamedTasks
from .page_cache import Keeper
from .standby import Standby
from .state_store import StateStore


class EndingGuard(Protocol):
    """What it needs of the guard that ends."""

    config: Config
    store: StateStore
    member: MemberState
    children: Children
    xid_log: XidLog
    tasks: NamedTasks
    page_cache: Keeper
    stop_requested: bool

    def log(self, text: str) -> None: ...


async def carry_out(
    guard: EndingGuard, fence: Fence, reason: str, failure: Failure | None, deliberate: bool
) -> Standby | None:
    """Kill, and keep a failure bundle; return what stands by for another guard in this process, or None.

    Where anything is left, systemd empties the control group: there, nothing of a generation survives.
    """
    for name in ("children", "engine", "checks", "drain", "weights"):
        guard.tasks.cancel(name)
    had = bool(guard.children.running)
    processes = fence.describe() if had else []
    standby = _standby_for_next(guard, deliberate)
    spare(guard, fence, standby)
    guard.page_cache.end()
    left = await fence.kill(guard.config.settings.kill_timeout)
    if left:
        guard.log(f"still alive after SIGKILL: {left}")
    guard.children.reap()
    if had and not deliberate:
        children, kernel = guard.children.running, guard.xid_log.lines
        kept = await failure_bundle.collect(guard.config, guard.member, reason, failure, children, processes, kernel)
        guard.store.save_bundle(failure_bundle.file_name(guard.member.generation), kept)
    return None if left or guard.stop_requested else standby


def spare(guard: EndingGuard, fence: Fence, standby: Standby | None) -> None:
    """Name the processes of this unit that are no generation's."""
    fence.helpers = {guard.xid_log.pid, *([standby.pid] if standby else [])}


def _standby_for_next(guard: EndingGuard, deliberate: bool) -> Standby | None:
    """What may outlive this generation; all else, and what is not ready, ends with it."""
    standby = guard.children.standby
    if standby is None or deliberate or guard.stop_requested or standby.look() or not standby.ready:
        guard.children.drop_standby()
        return None
    return standby
