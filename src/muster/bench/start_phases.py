"""Where the seconds of an engine's start go: per process, from its log lines and the times at which they came. Pure.

An engine logs the end of each phase. What lies between two ends of one process is the later one's phase; what lies
before the first is the process's own start and its imports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

IMPORTS = "imports"
CONFIGURATION, RENDEZVOUS, NCCL, WEIGHTS = "configuration", "rendezvous", "NCCL", "weights"
COMPILE, PROFILING, GRAPHS, REST = "compile", "profiling", "graphs", "rest of the engine"
PROCESSES, WAITING, API, ANSWER = "process starts", "waiting for engines", "API", "first answer"

PHASES = (
    *(IMPORTS, CONFIGURATION, PROCESSES, RENDEZVOUS, NCCL, WEIGHTS, COMPILE, PROFILING, GRAPHS, REST, WAITING, API),
    ANSWER,
)
"""In the order of a start."""

# Wording of vLLM 0.32 and 0.33. The first that matches a line counts.
_ENDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (PROCESSES, re.compile(r"Started DP Coordinator process|Started \d+ API server processes")),
    (CONFIGURATION, re.compile(r"Final IR op priority|Chunked prefill is enabled|Resolved architecture")),
    (RENDEZVOUS, re.compile(r"distributed_init_method=|vLLM is using nccl|Initializing a V1 LLM engine")),
    (NCCL, re.compile(r"rank \d+ in world size \d+ is assigned")),
    (WEIGHTS, re.compile(r"Model loading took|Loading weights took")),
    (COMPILE, re.compile(r"torch\.compile (?:took|takes)|Dynamo bytecode transform|Directly load AOT compilation")),
    (PROFILING, re.compile(r"[Pp]rofiling/warmup run took|Available KV cache memory|skipped memory profiling")),
    (GRAPHS, re.compile(r"Graph capturing finished|Warming up done")),
    (REST, re.compile(r"init engine \(profile|KV cache size: [\d,]+ tokens")),
    (WAITING, re.compile(r"Supported tasks:|Waiting for API servers to complete|subscriptions received")),
    (API, re.compile(r"Application startup complete|Starting vLLM server on|Available routes are")),
)
_PREFIX = re.compile(r"\(([A-Za-z][\w.-]*) pid=(\d+)\)")
_LONGEST = 4000
_PASSIVE = (REST, WAITING)
_MOMENT = 1e-3


@dataclass(frozen=True)
class Span:
    """One phase of one process, in seconds after the start of the engine."""

    process: str
    pid: int
    phase: str
    begin: float
    end: float


def spans(
    lines: Sequence[tuple[float, str]], *, began: float, born: Mapping[int, float], answered: float | None = None
) -> list[Span]:
    """Return the phases of every process that logged, by process and time.

    Args:
        lines: (when it came, text) of the whole engine, in order.
        began: when the engine was started, on the same clock.
        born: process id -> when that process began; one that is missing began with its first line.
        answered: when the first answer was in, if there was one.
    """
    names, last = dict[int, str](), dict[int, float]()
    made: list[Span] = []
    for when, line in lines:
        match = _PREFIX.search(line[:_LONGEST])
        if match is None:
            continue
        pid = int(match[2])
        names[pid] = match[1]
        phase = next((phase for phase, pattern in _ENDS if pattern.search(line[:_LONGEST])), None)
        if pid not in last:
            last[pid] = when
            # A process whose first word is that others are up was silent until then.
            made.append(Span("", pid, WAITING if phase == WAITING else IMPORTS, born.get(pid, when), when))
        if phase:
            made.append(Span("", pid, phase, last[pid], when))
            last[pid] = when
    ready = max((span.end for span in made if span.phase == API), default=None)
    if answered is not None and ready is not None:
        first = next(span.pid for span in made if span.phase == API and span.end == ready)
        made.append(Span("", first, ANSWER, ready, answered))
    return [
        Span(names[span.pid], span.pid, span.phase, round(span.begin - began, 3), round(span.end - began, 3))
        for span in _joined(made)
    ]


def _joined(made: Sequence[Span]) -> list[Span]:
    """Neighbours of one process and one phase as one; processes in the order in which they began."""
    order = list(dict.fromkeys(span.pid for span in sorted(made, key=lambda span: span.begin)))
    joined: list[Span] = []
    for span in sorted(made, key=lambda span: (order.index(span.pid), span.begin, span.end)):
        before = joined[-1] if joined else None
        if before and (before.pid, before.phase, before.end) == (span.pid, span.phase, span.begin):
            joined[-1] = Span(span.process, span.pid, span.phase, before.begin, span.end)
        else:
            joined.append(span)
    return [span for span in joined if span.end > span.begin]


def critical(made: Sequence[Span]) -> dict[str, float]:
    """Return phase -> seconds of the path that decided when the engine answered.

    Walks back from the last end: what a process did, until it began; then what was running when it began. A phase in
    which a process may wait for others counts only back to the last end of somebody's work.
    """
    seconds: dict[str, float] = {}
    at = max((span.end for span in made), default=0.0)
    while running := [span for span in made if span.begin < at - _MOMENT and span.end > at - _MOMENT]:
        working = [span for span in running if span.phase not in _PASSIVE]
        if working:
            # Starting others comes after what those others do meanwhile.
            span = max(working, key=lambda each: (each.phase != PROCESSES, each.begin))
            since = span.begin
        else:
            span = max(running, key=lambda each: each.begin)
            ends = [each.end for each in made if each.phase not in _PASSIVE and each.end < at - _MOMENT]
            since = max([span.begin, *ends])
        seconds[span.phase] = seconds.get(span.phase, 0.0) + at - since
        at = since
    return {phase: round(seconds[phase], 2) for phase in PHASES if phase in seconds}
