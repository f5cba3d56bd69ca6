"""Does every DP rank answer? Judged from the engine's own counters and short canaries. Pure.

`/health` cannot tell: it stays 200 while requests hang. Proof of life is work done: the engine's counters advance, or
it answers a canary pinned to that rank. Work in flight without progress for `stall_timeout` is a stall. A quiet rank
gets a canary, and a failed canary is a strike only if the rank made no progress meanwhile: waiting behind a burst of
requests never counts against a healthy engine. An unanswered canary is work in flight too: the gauges miss requests
that reach an engine core which stopped between two steps.

Where the engine chooses which rank answers, no canary is pinned. Its answer then clears no rank of its strikes, and its
failure is a strike for every rank whose counters have not moved since it was sent. Work in flight alone is no stall
there: a gauge stays as it was when the last request is abandoned, and no canary can be sent to that rank to tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Union

from .group_settings import Settings

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
GENERATED = "vllm:generation_tokens_total"
PROGRESS = (
    "vllm:iteration_tokens_total_count",
    GENERATED,
    "vllm:prompt_tokens_total",
    "vllm:kv_cache_usage_perc",
    RUNNING,
    WAITING,
)
"""All set from what an engine core sends, never by the API server alone. Token counters move when a step returns
tokens; during the prefill of one long prompt only the cache usage moves."""


@dataclass(frozen=True)
class Sample:
    """One engine's counters at one time."""

    progress: tuple[float, ...]
    in_flight: float
    generated: float


@dataclass(frozen=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True)
class Up:
    """The endpoint answers `/health`: canaries may go out."""


@dataclass(frozen=True)
class Scraped:
    """`/metrics`, by DP rank."""

    samples: Mapping[int, Sample]


@dataclass(frozen=True)
class CanaryBack:
    """A canary's end. `verdict`: `answered`, `failed` (no answer, or the engine's fault), `refused` (ours or load)."""

    rank: int
    verdict: str
    detail: str = ""


LivenessEvent = Union[Tick, Up, Scraped, CanaryBack]


@dataclass(frozen=True)
class Canary:
    """Ask this rank for a few tokens."""

    rank: int


@dataclass(frozen=True)
class AllAnswered:
    """Every rank has answered once: the group is ready."""


@dataclass(frozen=True)
class Stall:
    """A rank is not alive."""

    rank: int
    reason: str


LivenessAction = Union[Canary, AllAnswered, Stall]


@dataclass(frozen=True)
class Rank:
    proof: float = float("-inf")
    """When it last showed that it is alive."""
    moved: float = float("-inf")
    """When its counters last moved, or were first read."""
    sample: Sample | None = None
    sampled: float = 0.0
    tokens_per_s: float = 0.0
    asked: float | None = None
    """When the canary in flight was sent."""
    ask_after: float = float("-inf")
    strikes: int = 0
    detail: str = ""
    """Error or status of the last failed canary."""


@dataclass(frozen=True)
class LivenessState:
    settings: Settings
    ranks: Mapping[int, Rank]
    pinned: bool = True
    """Whether a canary reaches the rank that it is for."""
    up: bool = False
    ready: bool = False


Result = tuple[LivenessState, Sequence[LivenessAction]]


def start(settings: Settings, ranks: Sequence[int], *, pinned: bool = True) -> LivenessState:
    return LivenessState(settings, {rank: Rank() for rank in ranks}, pinned)


def step(state: LivenessState, event: LivenessEvent, now: float) -> Result:
    """Nothing is a stall before every rank has answered once: loading is bounded by the head's ready_timeout."""
    if isinstance(event, Up):
        return _tick(replace(state, up=True), now)
    if isinstance(event, Scraped):
        for rank, sample in event.samples.items():
            if rank in state.ranks:
                state = _with(state, rank, _sampled(state.ranks[rank], sample, now))
        return _tick(state, now)
    if isinstance(event, CanaryBack):
        if event.rank not in state.ranks or state.ranks[event.rank].asked is None:
            return state, ()
        return _back(state, event, now)
    return _tick(state, now)


def oldest_proof(state: LivenessState) -> float:
    """The oldest proof of life among the ranks."""
    return min(rank.proof for rank in state.ranks.values())


def fresh(state: LivenessState, now: float) -> bool:
    """Every rank's proof of life is younger than `proof_fresh`."""
    return state.ready and now - oldest_proof(state) < state.settings.proof_fresh


def _with(state: LivenessState, number: int, rank: Rank) -> LivenessState:
    return replace(state, ranks={**state.ranks, number: rank})


def _sampled(rank: Rank, sample: Sample, now: float) -> Rank:
    before = rank.sample
    if before is not None and sample.progress != before.progress:
        spent = max(now - rank.sampled, 1e-6)
        rate = max(sample.generated - before.generated, 0.0) / spent
        return replace(rank, sample=sample, sampled=now, tokens_per_s=rate, proof=now, moved=now, strikes=0)
    moved = now if before is None else rank.moved
    return replace(rank, sample=sample, sampled=now, tokens_per_s=0.0, moved=moved)


def _back(state: LivenessState, event: CanaryBack, now: float) -> Result:
    rank = state.ranks[event.rank]
    asked = rank.asked if rank.asked is not None else now
    if event.verdict == "answered":
        strikes = 0 if state.pinned else rank.strikes
        rank = replace(rank, asked=None, proof=now, strikes=strikes, detail="" if state.pinned else rank.detail)
        state = _with(state, event.rank, rank)
        if not state.ready and all(each.proof > float("-inf") for each in state.ranks.values()):
            return replace(state, ready=True), (AllAnswered(),)
        return state, ()
    # A refusal (wrong key, wrong name, a full queue) says nothing about the engine, and progress says it lives.
    rank = replace(rank, asked=None, ask_after=now + state.settings.canary_retry, detail=event.detail)
    state = _with(state, event.rank, rank)
    if state.ready and event.verdict == "failed":
        for number, each in state.ranks.items():
            quiet = each.proof <= asked and number == event.rank if state.pinned else each.moved <= asked
            if quiet:
                state = _with(state, number, replace(each, strikes=each.strikes + 1, detail=event.detail))
    stalls = tuple(
        Stall(number, f"DP rank {number} did not answer {each.strikes} canaries, the last one: {each.detail}")
        for number, each in state.ranks.items()
        if each.strikes >= state.settings.canary_strikes
    )
    return state, stalls


def _tick(state: LivenessState, now: float) -> Result:
    if not state.up:
        return state, ()
    settings = state.settings
    actions: list[LivenessAction] = []
    for number, rank in state.ranks.items():
        quiet = now - rank.proof
        still = quiet if state.pinned else now - rank.moved
        busy = state.pinned and rank.sample is not None and rank.sample.in_flight > 0
        if state.ready and (busy or rank.strikes) and still > settings.stall_timeout:
            owed = "with requests in flight" if busy else f"and did not answer a canary: {rank.detail}"
            reason = f"DP rank {number} made no progress for {settings.stall_timeout:g} s {owed}"
            actions.append(Stall(number, reason))
        elif rank.asked is None and now >= rank.ask_after and quiet > settings.canary_idle:
            # Busy ranks too: their gauges stay as they were when the last request is abandoned.
            state = _with(state, number, replace(rank, asked=now))
            actions.append(Canary(number))
    return state, tuple(actions)


def parse(text: str) -> dict[int, Sample]:
    """Prometheus text -> samples by the `engine` label. Unknown lines are skipped."""
    by_rank: dict[int, dict[str, float]] = {}
    for line in text.splitlines():
        if not line.startswith("vllm:"):
            continue
        name, brace, rest = line.partition("{")
        if not brace or name not in PROGRESS:
            continue
        labels, _, value = rest.rpartition("}")
        try:
            rank, number = int(_label(labels, "engine")), float(value.split()[0])
        except (ValueError, IndexError):
            continue
        if not math.isfinite(number):  # NaN differs from itself: it would always look like progress
            continue
        values = by_rank.setdefault(rank, {})
        values[name] = values.get(name, 0.0) + number
    return {
        rank: Sample(
            tuple(values.get(name, 0.0) for name in PROGRESS),
            values.get(RUNNING, 0.0) + values.get(WAITING, 0.0),
            values.get(GENERATED, 0.0),
        )
        for rank, values in by_rank.items()
    }


def _label(labels: str, name: str) -> str:
    start = f",{labels}".find(f',{name}="')
    if start < 0:
        raise ValueError(name)
    return labels[start + len(name) + 2 :].partition('"')[0]
