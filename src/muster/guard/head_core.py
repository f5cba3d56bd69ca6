"""The head's half of the decision core: (state, event, now) -> (state, actions). Pure.

A generation is one life of the head's guard: a fresh random token, compared for equality only. A report counts only if
it carries that token, so it was sent after this guard started; reports from an instance older than the current one, or
older than its last report, are ignored. The group may run once every host has such a report: this plan's digest,
nothing that blocks it, no child. From then on anything out of order ends the generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Union

from . import barrier, loader_choice, restart_policy
from .barrier import Peer
from .group_settings import Group, Settings
from .messages import ABORT, DRAIN, GATHER, HELD, REFUSED, RUN, Failure, Report, View
from .restart_policy import RestartRecord

INSTANCES_KEPT = 32
"""Instance ids kept per host, in order of first report."""


@dataclass(frozen=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True)
class Ready:
    """Every DP rank has answered once."""


@dataclass(frozen=True)
class Stalled:
    """The engine makes no progress, or a canary failed too often."""

    reason: str


@dataclass(frozen=True)
class Command:
    """An operator's command: `stop`, `restart` or `resume`."""

    name: str
    by: str = ""
    """Who gave it, `user@machine`; empty if unknown."""
    at: float = 0.0
    """When, in seconds since 1970."""


@dataclass(frozen=True)
class Outdated:
    """guard.json on disk carries another digest than this guard."""


@dataclass(frozen=True)
class Unwanted:
    """What runs is no longer wanted: the generation ends on purpose, and the next one waits for its start checks."""

    reason: str


HeadEvent = Union[Tick, Ready, Stalled, Command, Outdated, Unwanted, Report]


@dataclass(frozen=True)
class Reply:
    """The answer to one report."""

    host: str
    view: View


@dataclass(frozen=True)
class PushViews:
    """Send the head's view to every member, unasked: see `pushed_views`."""


@dataclass(frozen=True)
class SaveRecord:
    """Write the state's record to disk, before the actions that follow."""


@dataclass(frozen=True)
class SaveStart:
    """Keep how long the group took from the start of its children until it was ready."""

    seconds: float


@dataclass(frozen=True)
class Exit:
    """Kill every child and end the guard."""

    reason: str
    failure: Failure | None = None
    deliberate: bool = False


HeadAction = Union[Reply, PushViews, SaveRecord, SaveStart, Exit]


@dataclass(frozen=True)
class HeadState:
    group: Group
    settings: Settings
    generation: str
    record: RestartRecord
    phase: str
    peers: Mapping[str, Peer] = field(default_factory=dict)
    since: float = 0.0
    """When the phase began."""
    ready_at: float | None = None
    healthy: bool = False
    reason: str = ""
    deliberate: bool = False
    """In `abort`: on purpose."""
    has_api: bool = True
    """Whether the children answer requests; daemons that keep weights only say that they serve."""
    loaders: Sequence[str] = ()
    """What the plan allows to be chosen for loading."""
    loader: str = ""
    """What this generation loads its weights with, fixed when it goes to `run`; empty for vLLM's own default."""
    patience: float = float("inf")
    """Seconds from `run` after which a group that is not ready has failed to start."""


Result = tuple[HeadState, Sequence[HeadAction]]


def start(group: Group, settings: Settings, generation: str, record: RestartRecord, now: float) -> HeadState:
    """The head of a guard that has just started."""
    peers = {host: Peer() for host in group.hosts}
    phase = HELD if record.held else GATHER
    return HeadState(group, settings, generation, record, phase, peers, since=now)


def step(state: HeadState, event: HeadEvent, now: float) -> Result:
    """What the head does on an event. In `abort` it only answers reports: the guard is about to exit."""
    if isinstance(event, Report):
        return _report(state, event, now)
    if state.phase == ABORT:
        return state, ()
    if isinstance(event, Command):
        return _command(state, event, now)
    if isinstance(event, Tick):
        return _tick(state, now)
    if isinstance(event, Ready):
        return _ready(state, now) if state.phase == RUN and state.ready_at is None else (state, ())
    if isinstance(event, Stalled):
        if state.phase in (RUN, DRAIN):
            return _abort(state, Failure(state.group.head, event.reason), now)
        return state, ()
    if isinstance(event, Unwanted):
        return _end(state, event.reason, now) if state.phase == RUN else (state, ())
    if state.phase in (HELD, GATHER):
        return _end(state, "the plan on this host has changed", now)
    return state, ()


def blockers(state: HeadState, now: float) -> dict[str, str]:
    """Host -> why it keeps the group from starting. Empty: the barrier is complete."""
    return barrier.blockers(state.group, state.peers, state.settings, now)


def _report(state: HeadState, report: Report, now: float) -> Result:
    refused = barrier.refusal(state.group, report)
    peer = state.peers.get(report.host)
    if peer is None or (refused and report.group != state.group.name):
        return state, (_reply(state, report, refused),)
    if refused:
        return _with(state, report.host, replace(peer, refused=refused)), (_reply(state, report, refused),)
    if report.generation != state.generation or report.instance not in peer.instances:
        # It must learn the generation first: this report may be older than this guard.
        if report.instance not in peer.instances:
            peer = replace(peer, instances=(*peer.instances, report.instance)[-INSTANCES_KEPT:], refused="")
            state = _with(state, report.host, peer)
        return state, (_reply(state, report),)
    known = peer.instance in peer.instances
    if known and peer.instances.index(report.instance) < peer.instances.index(peer.instance):
        return state, ()
    same = report.instance == peer.instance
    if same and peer.report is not None and report.seq <= peer.report.seq:
        return state, ()
    replaced = bool(peer.instance) and not same
    peer = replace(peer, instance=report.instance, report=report, heard=now, refused="")
    state = _with(state, report.host, peer)
    actions: Sequence[HeadAction] = ()
    if state.phase in (RUN, DRAIN):
        state, actions = _running(state, report, replaced, now)
    elif state.phase == GATHER:
        state, actions = _gather(state, now)
    return state, (*actions, _reply(state, report))


def _running(state: HeadState, report: Report, replaced: bool, now: float) -> Result:
    """A report during a run: anything but steady ends the generation."""
    if report.failure is not None:
        return _abort(state, replace(report.failure, host=report.host), now)
    if replaced:
        how = f" (its last one: {report.previous})" if report.previous else ""
        return _abort(state, Failure(report.host, f"the guard restarted{how}"), now)
    if report.leaving and state.phase == RUN:
        return _drain(state, f"the unit on {report.host} is being stopped", now)
    return state, ()


def _gather(state: HeadState, now: float) -> Result:
    if now < restart_policy.starts_after(state.record, state.settings) or blockers(state, now):
        return state, ()
    times = loads(state)
    loader = loader_choice.choose(times, state.record.unfit, state.loaders)
    record = restart_policy.begun(state.record, state.generation, loader)
    patience = min(state.settings.ready_timeout, loader_choice.patience(times, loader))
    state = replace(state, phase=RUN, since=now, record=record, loader=loader, patience=patience)
    return state, (SaveRecord(), PushViews())


def loads(state: HeadState) -> dict[str, str]:
    """Host -> how long each loader would take there, by its latest report."""
    return {host: peer.report.loads if peer.report else "" for host, peer in state.peers.items()}


def _ready(state: HeadState, now: float) -> Result:
    saved = (SaveRecord(),) if state.record.loading else ()
    record = replace(state.record, loading="")
    return replace(state, ready_at=now, record=record), (*saved, SaveStart(now - state.since))


def _tick(state: HeadState, now: float) -> Result:
    settings = state.settings
    if state.phase == GATHER:
        return _gather(state, now)
    if state.phase not in (RUN, DRAIN):
        return state, ()
    for host in state.group.hosts:
        peer = state.peers[host]
        if now - peer.heard > settings.silence_timeout:
            reason = f"silent for {settings.silence_timeout:g} s"
            if peer.refused:
                reason += f"; {peer.refused}"
            return _abort(state, Failure(host, reason), now)
    if state.phase == DRAIN:
        if now - state.since > settings.drain_seconds + settings.drain_margin:
            return _end(state, state.reason, now)
        return state, ()
    if state.ready_at is None:
        if now - state.since > state.patience:
            reason = f"not ready {state.patience:g} s after the start{f' with {state.loader}' if state.loader else ''}"
            return _abort(state, Failure(state.group.head, reason), now)
    elif not state.healthy and now - state.ready_at >= settings.healthy_after:
        return replace(state, healthy=True, record=restart_policy.after_healthy_run(state.record)), (SaveRecord(),)
    return state, ()


def record_after(record: RestartRecord, command: Command) -> RestartRecord:
    """The record that an operator's command makes: what must be on disk before the command is acknowledged."""
    if command.name == "stop":
        return restart_policy.stopped(record, command.by, command.at)
    return restart_policy.lift_hold(record)


def _command(state: HeadState, command: Command, now: float) -> Result:
    who = f" ({command.by})" if command.by else ""
    state = replace(state, record=record_after(state.record, command))
    if command.name == "stop":
        if state.phase == RUN:
            state, actions = _drain(state, f"stopped by an operator{who}", now)
            return state, (SaveRecord(), *actions)
        if state.phase == GATHER:
            state = replace(state, phase=HELD, since=now)
        return state, (SaveRecord(),)
    if command.name == "restart":
        if state.phase == RUN:
            state, actions = _drain(state, f"restarted by an operator{who}", now)
        elif state.phase == DRAIN:
            actions = ()
        else:
            state, actions = _end(state, f"restarted by an operator{who}", now)
        return state, (SaveRecord(), *actions)
    if state.phase == HELD:
        state = replace(state, phase=GATHER, since=now)
    return state, (SaveRecord(),)


def _drain(state: HeadState, reason: str, now: float) -> Result:
    if state.settings.drain_seconds <= 0:
        return _end(state, reason, now)
    return replace(state, phase=DRAIN, since=now, reason=reason), (PushViews(),)


def _end(state: HeadState, reason: str, now: float) -> Result:
    """The generation ends on purpose: not counted as an abort."""
    record = replace(state.record, running="", loading="")
    state = replace(state, phase=ABORT, since=now, reason=reason, record=record, deliberate=True)
    return state, (SaveRecord(), PushViews(), Exit(reason, deliberate=True))


def _abort(state: HeadState, failure: Failure, now: float) -> Result:
    """The generation ends because of `failure`. Later failures are consequences and not recorded."""
    if state.phase == DRAIN:
        return _end(state, state.reason, now)
    failure = replace(failure, generation=state.generation, at=now, digest=state.group.digest)
    record = restart_policy.after_abort(state.record, failure, state.settings, now)
    reason = f"{failure.host}: {failure.reason}"
    state = replace(state, phase=ABORT, since=now, reason=reason, record=record)
    return state, (SaveRecord(), PushViews(), Exit(reason, failure))


def _with(state: HeadState, host: str, peer: Peer) -> HeadState:
    return replace(state, peers={**state.peers, host: peer})


def view(state: HeadState, report: Report, refused: str = "") -> View:
    """The head's answer to a report."""
    phase = REFUSED if refused else state.phase
    reason = (refused or state.reason)[:2000]
    return View(report.instance, report.seq, state.generation, phase, reason, state.deliberate, state.loader)


def pushed_views(state: HeadState) -> dict[str, View]:
    """Host -> the view, as another answer to its latest report, so that a phase change does not wait for a poll.

    The head's own host comes last: an abort ends this guard, and the others must hear of it first.
    """
    hosts = sorted(state.peers, key=lambda host: host == state.group.head)
    reports = {host: state.peers[host].report for host in hosts}
    return {host: view(state, report) for host, report in reports.items() if report is not None}


def _reply(state: HeadState, report: Report, refused: str = "") -> Reply:
    return Reply(report.host, view(state, report, refused))
