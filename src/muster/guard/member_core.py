"""The member's half of the decision core: (state, event, now) -> (state, actions). Pure; every guard runs one.

Safety rests on two rules and on no clock. A member with a child never accepts another generation: it ends, and its
control group holds no process of that generation any more before a fresh instance starts. And it starts a child only on
the answer to its latest report, when that report said `no child, generation g` and the answer says `run g`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Union

from . import loader_choice
from .group_settings import Group, Settings
from .messages import ABORT, DRAIN, ENDED, NONE, REFUSED, RUN, RUNNING, Failure, Report, View

NOT_CHECKED = "the local checks have not run yet"
LAST_REPORT_TIMEOUT = 1.0
"""Seconds that a dying member waits for the head to acknowledge its last report."""


@dataclass(frozen=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True)
class Linked:
    """The connection to the head is open (again): what was sent before may be lost."""


@dataclass(frozen=True)
class Checked:
    """The local checks: why this host cannot start a child, or empty."""

    blocked: str
    loads: str | None = None
    """How long each loader would take here; None where that was not looked at."""


@dataclass(frozen=True)
class ChildEnded:
    """A child ended, could not be started, or the host can no longer run it."""

    failure: Failure


@dataclass(frozen=True)
class Leave:
    """The unit is being stopped."""


@dataclass(frozen=True)
class Outdated:
    """guard.json on disk carries another digest than this guard."""


MemberEvent = Union[Tick, Linked, Checked, ChildEnded, Leave, Outdated, View]


@dataclass(frozen=True)
class Send:
    report: Report


@dataclass(frozen=True)
class Start:
    """Start the children, with this generation in their environment and the loader that the head has chosen."""

    generation: str
    loader: str = ""
    """What they load weights with; empty for vLLM's own default."""


@dataclass(frozen=True)
class Drain:
    """Wait until nothing is in flight, then report that the child has ended."""


@dataclass(frozen=True)
class Exit:
    """Kill every child and end the guard."""

    reason: str
    failure: Failure | None = None
    deliberate: bool = False


MemberAction = Union[Send, Start, Drain, Exit]


@dataclass(frozen=True)
class MemberState:
    group: Group
    settings: Settings
    host: str
    instance: str
    generation: str = ""
    child: str = NONE
    blocked: str = NOT_CHECKED
    failure: Failure | None = None
    seq: int = 0
    sent: float = float("-inf")
    """When the latest report was sent."""
    waiting: bool = False
    """The latest report has no answer yet."""
    heard: float = float("-inf")
    """When the latest answered report was sent: earlier than its answer, so that a late answer buys no extra time."""
    phase: str = ""
    reason: str = ""
    """What the head last said, for people."""
    leave_by: float | None = None
    drained: bool = False
    previous: str = ""
    ending: Exit | None = None
    """Decided; waits until the head has heard why."""
    detail: str = ""
    loads: str = ""
    """How long each loader would take on this host, as the head was last told."""


Result = tuple[MemberState, Sequence[MemberAction]]


def step(state: MemberState, event: MemberEvent, now: float) -> Result:
    """What a member does on an event. After an Exit nothing more is decided."""
    if isinstance(event, View):
        return _view(state, event, now)
    if isinstance(event, Checked):
        loads = state.loads if event.loads is None else loader_choice.newest(state.loads, event.loads)
        changed = (event.blocked, loads) != (state.blocked, state.loads)
        state = replace(state, blocked=event.blocked, loads=loads)
        return _send(state, now) if changed and state.child == NONE else (state, ())
    if isinstance(event, Linked):
        return _send(state, now)
    if isinstance(event, ChildEnded):
        return _ended(state, event.failure, now)
    if isinstance(event, Leave):
        return _leave(state, now)
    if isinstance(event, Outdated):
        if state.child == NONE and state.host != state.group.head:
            return state, (Exit("the plan on this host has changed", deliberate=True),)
        return state, ()
    return _tick(state, now)


def _send(state: MemberState, now: float) -> Result:
    state = replace(state, seq=state.seq + 1, sent=now, waiting=True)
    group = state.group
    report = Report(
        host=state.host,
        group=group.name,
        digest=group.digest,
        engine=group.engine,
        instance=state.instance,
        seq=state.seq,
        generation=state.generation,
        child=state.child,
        blocked=state.blocked,
        failure=state.failure,
        leaving=state.leave_by is not None,
        previous=state.previous,
        detail=state.detail,
        loads=state.loads,
    )
    return state, (Send(report),)


def _view(state: MemberState, view: View, now: float) -> Result:
    if view.instance != state.instance:
        return state, ()
    own_end = view.phase == ABORT and view.generation == state.generation != ""
    if view.seq != state.seq and not own_end:
        # Only the answer to the latest report counts, but an abort of its own generation is valid at any time.
        return state, ()
    if view.seq == state.seq and state.waiting:
        state = replace(state, waiting=False, heard=max(state.heard, state.sent))
    state = replace(state, phase=view.phase, reason=view.reason)
    if state.ending is not None:
        return state, (state.ending,)
    if state.child == RUNNING:
        if view.generation != state.generation:
            return state, (Exit("the head runs another generation"),)
        if view.phase == ABORT:
            return state, (Exit(f"the group was stopped: {view.reason}", deliberate=view.deliberate),)
        if view.phase == DRAIN and state.host == state.group.head and not state.drained:
            return replace(state, drained=True), (Drain(),)
        return state, ()
    if state.leave_by is not None:
        return state, (Exit("the unit is being stopped", deliberate=True),)
    if view.phase == REFUSED:
        return state, ()
    if view.generation != state.generation:
        return _send(replace(state, generation=view.generation), now)
    if view.phase == RUN:
        state, actions = _send(replace(state, child=RUNNING, drained=False), now)
        return state, (Start(state.generation, view.loader), *actions)
    return state, ()


def _ended(state: MemberState, failure: Failure, now: float) -> Result:
    if state.child != RUNNING or state.ending is not None:
        return state, ()
    failure = replace(failure, host=state.host, generation=state.generation)
    on_purpose = state.drained or state.phase == DRAIN or state.leave_by is not None
    ending = Exit(failure.reason, failure, deliberate=on_purpose)
    return _send(replace(state, child=ENDED, failure=failure, ending=ending), now)


def _leave(state: MemberState, now: float) -> Result:
    if state.child != RUNNING:
        return state, (state.ending or Exit("the unit is being stopped", deliberate=True),)
    if state.leave_by is not None:
        return state, ()
    by = now + state.settings.drain_seconds + state.settings.drain_margin
    return _send(replace(state, leave_by=by), now)


def _tick(state: MemberState, now: float) -> Result:
    if state.ending is not None and now - state.sent > LAST_REPORT_TIMEOUT:
        return state, (state.ending,)
    if state.leave_by is not None and now > state.leave_by:
        return state, (Exit("the unit is being stopped", deliberate=True),)
    if state.child == RUNNING and now - state.heard > state.settings.silence_timeout:
        # Reported: in a one-way partition the head still hears it, and need not wait for its own timeout.
        who = "this guard was stopped" if state.host == state.group.head else f"the head {state.group.head} was silent"
        reason = f"{who} for {state.settings.silence_timeout:g} s"
        return _ended(state, Failure(state.host, reason), now)
    pause = state.settings.report_timeout if state.waiting else state.settings.poll_interval
    if now - state.sent >= pause:
        return _send(state, now)
    return state, ()
