"""What happens to a group, as events: starts, failures, restarts, holds, what blocks a host. Pure.

An event is told by the guard that decides it: a host its own start, failure and block; the head the group's rest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import head_core, loader_choice, restart_policy
from .head_core import HeadState
from .member_core import NOT_CHECKED
from .messages import ABORT, RUN, Failure
from .printable_text import one_line
from .restart_policy import RestartRecord

START = "start"
"""This host starts its processes."""
READY = "ready"
FAILURE = "failure"
"""Something failed on this host."""
RESTART = "restart"
"""A generation ends, and another follows unless the group is held."""
HOLD = "hold"
"""Nothing starts from now on: stopped by an operator, or the restart budget is spent."""
RESUME = "resume"
BLOCK = "block"
"""Something keeps this host from starting."""
UNBLOCK = "unblock"
LOADER = "loader"
"""What the group's weights are loaded with, or what they are not loaded with any more."""

KINDS = (START, READY, FAILURE, RESTART, HOLD, RESUME, BLOCK, UNBLOCK, LOADER)
TEXT, WORD = 1000, 200
"""Characters of an event's text, and of its other words."""


@dataclass(frozen=True)
class Event:
    kind: str
    text: str
    generation: str = ""
    cause: str = ""
    """The host where it began, where another host reports it."""
    process: str = ""
    by: str = ""
    """Who gave the command."""

    @property
    def urgent(self) -> bool:
        """Whether somebody may have to do something."""
        on_purpose = (self.kind == RESTART and not self.cause) or (self.kind == HOLD and self.by)
        return self.kind in (FAILURE, RESTART, HOLD, BLOCK) and not on_purpose


def started(generation: str) -> Event:
    return Event(START, f"starting generation {generation}", generation)


def failed(failure: Failure, generation: str) -> Event:
    return Event(FAILURE, f"{failure.process or 'host'}: {failure.reason}", generation, process=failure.process)


def of_checks(before: str, after: str) -> Sequence[Event]:
    """What changed between two verdicts of a host's own checks. Numbers in one change all the time and are no news."""
    if after == before or _without_numbers(after) == _without_numbers(before):
        return ()
    if after and after != NOT_CHECKED:
        return (Event(BLOCK, f"blocked: {after}"),)
    return (Event(UNBLOCK, "no longer blocked"),) if before not in ("", NOT_CHECKED) else ()


def of_head(before: HeadState, after: HeadState, by: str = "") -> Sequence[Event]:
    """What one step of the head did to the group. `by`: who gave the command that it was."""
    events = list(of_records(before.record, after.record, by))
    if after.phase == RUN != before.phase and after.loader:
        times = loader_choice.slowest(head_core.loads(after))
        expected = f"{times[after.loader]:.0f} s expected, {loader_choice.AUTO} {times[loader_choice.AUTO]:.0f} s"
        events.append(Event(LOADER, f"weights are loaded by {after.loader}: {expected}"))
    if before.ready_at is None and after.ready_at is not None:
        seconds = after.ready_at - after.since
        events.append(Event(READY, f"every DP rank has answered, {seconds:.0f} s after the start"))
    if after.phase == ABORT != before.phase and after.deliberate and not after.record.held:
        events.append(Event(RESTART, f"the generation ends on purpose: {after.reason}", by=by))
    return [replace(event, generation=event.generation or after.generation) for event in events]


def of_records(before: RestartRecord, after: RestartRecord, by: str = "") -> Sequence[Event]:
    """What a change of the record means: a restart, a hold, its end."""
    events = []
    if after.restarts > before.restarts and after.failures:
        failure = after.failures[0]
        text = f"the generation ends: {failure.host}: {failure.reason}"
        events.append(Event(RESTART, text, failure.generation, failure.host, failure.process))
        for loader in after.unfit[len(before.unfit) :]:
            text = f"{loader} is not taken again: the start with it failed; muster resume lifts that"
            events.append(Event(LOADER, text, failure.generation))
    if after.held == before.held:
        return events
    if after.held == restart_policy.FAILED:
        events.append(
            Event(HOLD, "failed: the restart budget is spent; nothing starts until somebody resumes the group")
        )
    elif after.held:
        who = after.held_by or "an operator"
        events.append(Event(HOLD, f"stopped by {who}", by=who))
    else:
        events.append(Event(RESUME, f"resumed by {by or 'an operator'}", by=by or "an operator"))
    return events


def fields(event: Event, group: str, host: str, plan: str) -> dict[str, str]:
    """The event as fields of a journal entry: bounded, each one line; empty ones are left out."""
    words = {
        "MUSTER_EVENT": event.kind,
        "MUSTER_GROUP": group,
        "MUSTER_HOST": host,
        "MUSTER_PLAN": plan,
        "MUSTER_GENERATION": event.generation,
        "MUSTER_CAUSE": event.cause,
        "MUSTER_PROCESS": event.process,
        "MUSTER_BY": event.by,
    }
    kept = {name: line for name, text in words.items() if (line := one_line(text, WORD))}
    return {"MESSAGE": f"muster: {one_line(event.text, TEXT)}", "PRIORITY": "4" if event.urgent else "6", **kept}


def _without_numbers(text: str) -> str:
    return re.sub(r"[0-9.]+", "0", text)
