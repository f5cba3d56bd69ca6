"""The group's state for readers: `status` as JSON, `/ready`, one line, and Prometheus text. Pure."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from . import blocked_causes, head_core, liveness, restart_policy
from .config import Config
from .head_core import HeadState
from .liveness import LivenessState
from .member_core import MemberState
from .messages import ABORT, DRAIN, GATHER, HELD, RUN, Failure


def phase(state: HeadState, now: float) -> str:
    """The group's phase for people: `gather` and `run` are split by what the group waits for."""
    if state.phase == HELD:
        return state.record.held
    if state.phase == GATHER and not state.has_api and _stopped_with_engine(state):
        return restart_policy.STOPPED
    if state.phase == GATHER:
        return "backoff" if now < restart_policy.starts_after(state.record, state.settings) else "gather"
    if state.phase == RUN:
        return "starting" if state.ready_at is None else "running"
    return state.phase


def _stopped_with_engine(state: HeadState) -> bool:
    """Whether the daemons wait because an operator stopped the group whose weights they keep."""
    report = state.peers[state.group.head].report
    return report is not None and blocked_causes.cause_of(report.blocked) == "operator"


PHASES = ("stopped", restart_policy.FAILED, "backoff", GATHER, "starting", "running", DRAIN, ABORT)


def is_ready(state: HeadState, engine: LivenessState | None, now: float) -> bool:
    """Whether every DP rank has recently shown that it is alive."""
    if state.phase != RUN or state.ready_at is None:
        return False
    if not state.has_api:
        return True
    return engine is not None and liveness.fresh(engine, now)


def explain(state: HeadState, engine: LivenessState | None, now: float) -> str:
    """The phase and its reason in one line, as the body of `/ready`."""
    name = phase(state, now)
    if name in (GATHER, "backoff"):
        missing = "; ".join(f"{host}: {reason}" for host, reason in head_core.blockers(state, now).items())
        pause = restart_policy.starts_after(state.record, state.settings) - now
        wait = f"starts in {pause:.0f} s" if pause > 0 else ""
        return ", ".join(part for part in (name, wait, missing) if part)
    if name == restart_policy.STOPPED:
        return f"stopped{_by_whom(state.record)}"
    if name == restart_policy.FAILED:
        last = state.record.failures[0] if state.record.failures else None
        which = f"; the last failure: {last.host}: {last.reason}" if last else ""
        return f"failed: the restart budget is spent; nothing starts until an operator resumes the group{which}"
    if name == "starting" and engine is not None:
        late = [str(rank) for rank, each in engine.ranks.items() if not math.isfinite(each.proof)]
        return f"starting, no answer yet from DP ranks {', '.join(late)}" if late else "starting"
    if name == "running" and engine is not None:
        old = [str(rank) for rank, each in engine.ranks.items() if now - each.proof >= state.settings.proof_fresh]
        return f"running, without fresh proof of life of DP ranks {', '.join(old)}" if old else "running"
    return f"{name}: {state.reason}" if state.reason else name


def _by_whom(record: restart_policy.RestartRecord) -> str:
    by = f" by {record.held_by}" if record.held_by else ""
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.held_at)) if record.held_at else ""
    return f"{by}{' since ' + when if when else ''}"


def group_status(
    config: Config,
    state: HeadState,
    engine: LivenessState | None,
    now: float,
    refusals: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """All that `muster status` shows of the group. Ages are in seconds.

    `refusals`: member's address -> why its connection was closed before it could report.
    """
    lacking = head_core.blockers(state, now) if state.phase in (HELD, GATHER) else {}
    members = []
    for member in config.group.members:
        peer = state.peers[member.host]
        report = peer.report
        members.append(
            {
                "host": member.host,
                "address": member.address,
                "node_rank": member.node_rank,
                "dp_ranks": list(member.dp_ranks),
                "instance": peer.instance,
                "child": report.child if report else "",
                "blocked": report.blocked if report else "",
                "detail": report.detail if report else "",
                "refused": peer.refused or refusals.get(member.address, ""),
                "heard": _age(peer.heard, now),
                "lacks": lacking.get(member.host, ""),
            }
        )
    return {
        **_figures(state, engine, now),
        "reason": explain(state, engine, now),
        "generation": state.generation,
        "loader": state.loader,
        "members": members,
        "engines": engine_status(engine, now),
        "failures": [failure_status(failure, now) for failure in state.record.failures],
        "held_by": state.record.held_by,
        "held_at": state.record.held_at or None,
    }


def numbers(state: HeadState, engine: LivenessState | None, now: float) -> dict[str, Any]:
    """What anybody may read: the phase and numbers, no name, address, reason or log line."""
    return {
        **_figures(state, engine, now),
        "members": len(state.group.members),
        "engines": [_without(each, "detail") for each in engine_status(engine, now)],
    }


def unanswered(config: Config) -> str:
    """What a member says while nothing answers at the head's address.

    The head's firewall lets in the hosts of its own plan alone, so a guard of another plan may never hear its refusal.
    """
    group = config.group
    return (
        f"the head {group.head} does not answer at {config.head_address}:{config.control_port}: it is off, out of "
        f"reach, or its firewall drops what {config.this.address} sends; {config.host} carries plan "
        f"{group.digest[:12]}; if the head carries another, run the deploy on every host"
    )


def _figures(state: HeadState, engine: LivenessState | None, now: float) -> dict[str, Any]:
    """What both of them show; nothing in it names anybody."""
    pause = restart_policy.starts_after(state.record, state.settings) - now
    return {
        "phase": phase(state, now),
        "ready": is_ready(state, engine, now),
        "phase_for": _age(state.since, now),
        "ready_for": _age(state.ready_at, now),
        "starts_in": round(max(pause, 0.0), 1) if math.isfinite(pause) else 0.0,
        "restarts": state.record.restarts,
        "aborts_in_window": sum(now - at < state.settings.budget_window for at in state.record.aborts),
        "budget": state.settings.budget,
    }


def without_lines(group: dict[str, Any] | None) -> dict[str, Any] | None:
    """A group's status without the engine's log lines: those stay on the host."""
    if group is None:
        return None
    return {**group, "failures": [_without(failure, "lines") for failure in group["failures"]]}


def member_status(state: MemberState, now: float) -> dict[str, Any]:
    """This host's own part, available even when the head is out of reach."""
    return {
        "instance": state.instance,
        "generation": state.generation,
        "child": state.child,
        "blocked": state.blocked,
        "head_phase": state.phase,
        "head_reason": state.reason,
        "head_heard": _age(state.heard, now),
        "failure": failure_status(state.failure, now) if state.failure else None,
    }


def engine_status(engine: LivenessState | None, now: float) -> list[dict[str, Any]]:
    if engine is None:
        return []
    return [
        {
            "dp_rank": number,
            "proof": _age(rank.proof, now),
            "tokens_per_s": round(rank.tokens_per_s, 1),
            "in_flight": rank.sample.in_flight if rank.sample else 0,
            "strikes": rank.strikes,
            "detail": rank.detail,
        }
        for number, rank in sorted(engine.ranks.items())
    ]


def failure_status(failure: Failure, now: float) -> dict[str, Any]:
    return {**asdict(failure), "at": None, "age": _age(failure.at, now)}


def summary(state: HeadState, engine: LivenessState | None, now: float) -> str:
    """For `systemctl status`."""
    return f"{explain(state, engine, now)} (generation {state.generation[:8]}, {state.record.restarts} restarts)"


def prometheus(config: Config, state: HeadState, engine: LivenessState | None, now: float) -> str:
    """The text of `/metrics`."""
    out: list[str] = []
    labels = {"group": config.group.name}
    name = phase(state, now)

    def metric(metric: str, kind: str, text: str, rows: list[tuple[Mapping[str, str], float]]) -> None:
        out.append(f"# HELP {metric} {text}\n# TYPE {metric} {kind}")
        for extra, value in rows:
            pairs = ",".join(f'{key}="{_escaped(label)}"' for key, label in {**labels, **extra}.items())
            out.append(f"{metric}{{{pairs}}} {value:.12g}")

    metric("muster_phase", "gauge", "1 for the phase the group is in.", [({"phase": p}, p == name) for p in PHASES])
    metric(
        "muster_ready", "gauge", "1 while every DP rank has fresh proof of life.", [({}, is_ready(state, engine, now))]
    )
    metric("muster_restarts_total", "counter", "Aborts of the group since boot.", [({}, state.record.restarts)])
    metric(
        "muster_aborts_in_window",
        "gauge",
        "Aborts that count against the budget.",
        [({}, sum(now - at < state.settings.budget_window for at in state.record.aborts))],
    )
    metric(
        "muster_restart_budget",
        "gauge",
        "Aborts that the group may have within the budget's window.",
        [({}, state.settings.budget)],
    )
    metric(
        "muster_failures_in_a_row",
        "gauge",
        "Aborts since the group last stayed healthy, or an operator resumed it.",
        [({}, state.record.streak)],
    )
    metric("muster_phase_seconds", "gauge", "Since the phase began.", [({}, round(now - state.since, 1))])
    rows: list[tuple[Mapping[str, str], float]] = [
        ({"host": host}, round(min(now - peer.heard, 1e9), 1)) for host, peer in state.peers.items()
    ]
    metric("muster_member_silence_seconds", "gauge", "Since the member's last report.", rows)
    blocked: list[tuple[Mapping[str, str], float]] = [
        ({"host": host, "cause": cause}, 1.0) for host, cause in _blocked(state, now).items()
    ]
    metric("muster_member_blocked", "gauge", "1 for each host that cannot start a rank, by cause.", blocked)
    if engine is not None:
        ranks = sorted(engine.ranks.items())
        proofs: list[tuple[Mapping[str, str], float]] = [
            ({"dp_rank": str(number)}, round(min(now - rank.proof, 1e9), 1)) for number, rank in ranks
        ]
        metric("muster_proof_age_seconds", "gauge", "Since the DP rank last showed that it is alive.", proofs)
        strikes: list[tuple[Mapping[str, str], float]] = [
            ({"dp_rank": str(number)}, rank.strikes) for number, rank in ranks
        ]
        metric("muster_canary_strikes", "gauge", "Canaries in a row without an answer.", strikes)
    return "\n".join(out) + "\n"


def _blocked(state: HeadState, now: float) -> dict[str, str]:
    """Return host -> why it cannot start a rank, of the hosts that have said so lately or carry another plan."""
    causes = {}
    for host, peer in state.peers.items():
        heard = peer.report is not None and now - peer.heard <= state.settings.silence_timeout
        if peer.refused:
            causes[host] = "plan"
        elif heard and peer.report is not None and peer.report.blocked:
            causes[host] = blocked_causes.cause_of(peer.report.blocked)
    return causes


def _without(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


def _escaped(label: str) -> str:
    """A label's value in Prometheus' text format, which has three escapes."""
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _age(at: float | None, now: float) -> float | None:
    return round(now - at, 1) if at is not None and math.isfinite(at) else None
