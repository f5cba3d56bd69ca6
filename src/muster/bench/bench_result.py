"""Results of `vllm bench serve --save-result`: a run counts only if every request was answered."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.bench.figures import LATENCIES, PERCENTILES
from muster.guard.endpoint_kinds import COMPLETIONS, KINDS
from muster.hosts.printable import printable_data

_WITHOUT_TOKENS = {kind.bench[0] for name, kind in KINDS.items() if kind.bench and name != COMPLETIONS}
"""Backends of the tool whose requests generate nothing."""

STATISTICS = ("mean", "median", "std", *(f"p{percentile}" for percentile in PERCENTILES))


class UnreadableResult(ValueError):
    """The tool's file does not hold a finished run; the message says what it holds."""


@dataclass(frozen=True)
class BenchResult:
    """One run of the tool.

    Args:
        prompts: requests sent.
        completed, failed: requests answered and not answered.
        duration: seconds.
        request_throughput: requests per second.
        output_throughput, total_token_throughput: tokens per second; no output of a model that generates none.
        latency: `mean_ttft_ms` and so on, in milliseconds, without those that the tool did not measure.
        errors: reasons of failed requests, with how often each occurred, most frequent first.
    """

    prompts: int
    completed: int
    failed: int
    duration: float
    input_tokens: int
    output_tokens: int
    request_throughput: float
    output_throughput: float | None
    total_token_throughput: float
    latency: Mapping[str, float] = field(default_factory=dict)
    errors: tuple[tuple[str, int], ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """Why this run does not count, whatever the tool's exit status; empty when it counts."""
        problems = []
        if self.failed:
            reasons = ", ".join(f"{count} x {text}" for text, count in self.errors)
            problems.append(f"{self.failed} of {self.prompts} requests failed{f': {reasons}' if reasons else ''}")
        if self.completed < self.prompts and self.completed + self.failed != self.prompts:
            problems.append(f"{self.completed} of {self.prompts} requests completed")
        if self.completed and self.output_throughput is not None and not self.output_tokens:
            problems.append("no token was generated")
        return tuple(problems)


def parse_text(text: str) -> BenchResult:
    """Read the tool's file.

    Raises:
        UnreadableResult: an empty or broken file, or one that lacks a run's figures.
    """
    try:
        return parse(printable_data(json.loads(text), finite=False))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnreadableResult):
            raise
        raise UnreadableResult(f"no JSON of a benchmark run: {error}; it begins with {text[:60]!r}") from None


def parse(raw: object) -> BenchResult:
    """Read the tool's JSON.

    Raises:
        UnreadableResult: a missing or impossible figure, by name.
    """
    if not isinstance(raw, Mapping):
        raise UnreadableResult(f"a benchmark run is a JSON object; found {type(raw).__name__}")
    generates = str(raw.get("backend")) not in _WITHOUT_TOKENS
    completed, prompts = _count(raw, "completed"), _count(raw, "num_prompts")
    failed = _count(raw, "failed") if "failed" in raw else max(0, prompts - completed)  # 0.12 counts none
    return BenchResult(
        prompts=prompts,
        completed=completed,
        failed=failed,
        duration=_figure(raw, "duration"),
        input_tokens=_count(raw, "total_input_tokens"),
        output_tokens=_count(raw, "total_output_tokens") if generates else 0,
        request_throughput=_figure(raw, "request_throughput"),
        output_throughput=_figure(raw, "output_throughput") if generates else None,
        total_token_throughput=_figure(raw, "total_token_throughput"),
        latency=_latency(raw),
        errors=_errors(raw.get("errors")),
    )


def _errors(raw: object) -> tuple[tuple[str, int], ...]:
    """Read [[reason, count], ...]; anything else says nothing."""
    pairs = raw if isinstance(raw, list) else []
    return tuple(
        (" ".join(pair[0].split())[:300], pair[1])
        for pair in pairs[:5]
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and type(pair[1]) is int
    )


def _latency(raw: Mapping[str, Any]) -> dict[str, float]:
    names = [f"{statistic}_{metric}_ms" for metric in LATENCIES for statistic in STATISTICS]
    return {name: float(raw[name]) for name in names if _is_number(raw.get(name))}


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value) and value >= 0
    except OverflowError:  # an integer beyond any float
        return False


def _figure(raw: Mapping[str, Any], name: str) -> float:
    if not _is_number(raw.get(name)):
        raise UnreadableResult(f"'{name}' is {_shown(raw, name)}; needed: a number of at least 0")
    return float(raw[name])


def _count(raw: Mapping[str, Any], name: str) -> int:
    value = raw.get(name)
    if not _is_number(value) or not float(value).is_integer():  # type: ignore[arg-type]
        raise UnreadableResult(f"'{name}' is {_shown(raw, name)}; needed: a whole number of at least 0")
    return int(value)  # type: ignore[arg-type]


def _shown(raw: Mapping[str, Any], name: str) -> str:
    return repr(raw[name])[:60] if name in raw else "missing"
