"""An engine's start, read from its log: size of the KV cache, and how long each phase took."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from muster.guard import load_times

# Wording of vLLM 0.12 to 0.33; 0.32 joins the first two into one line and names the device.
_CACHE_TOKENS = re.compile(r"\b(?:GPU|CPU|[A-Z]{2,4})(?: \+ host)? KV cache size: ([\d,]+) tokens")
_CACHE_GIB = re.compile(r"Available KV cache memory: ([\d.]+) GiB")
_CONCURRENCY = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
_WEIGHTS_GIB = re.compile(r"Model loading took ([\d.]+) GiB")
_BACKEND = re.compile(r"Using (?:the )?(\w+) (?:attention )?backend\b")
_VERSION = re.compile(r"(?:vLLM (?:API )?server version|█ +version|Initializing a V1 LLM engine \(v)\s*([\w.+]+)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STAMP = re.compile(r"\b(?:INFO|WARNING|ERROR|DEBUG) (\d\d-\d\d \d\d:\d\d:\d\d)\b")
_READY = "Application startup complete"

PHASES: dict[str, re.Pattern[str]] = {
    "read weights": load_times.READ,
    "load model": load_times.MODEL,
    "trace": re.compile(r"Dynamo bytecode transform time: ([\d.]+) s"),
    "read compiled": re.compile(r"from the cache, took ([\d.]+) s"),
    "compile": re.compile(r"torch\.compile (?:took|takes) ([\d.]+) s"),
    "profile": re.compile(r"[Pp]rofiling/warmup run took ([\d.]+) s"),
    "CUDA graphs": re.compile(r"Graph capturing finished in ([\d.]+) s"),
    "engine": re.compile(r"init engine \(profile, create kv cache, warmup model\) took ([\d.]+) s"),
}
"""Phase -> its line. Phases overlap: `engine` contains compile, profile and CUDA graphs."""


@dataclass(frozen=True)
class EngineLog:
    """One start of an engine.

    Args:
        version: of vLLM, as logged.
        backend: attention backend.
        cache_tokens: KV cache in tokens, one for each DP rank that logged it.
        cache_gib: memory of the smallest rank's KV cache, in GiB.
        concurrency: (tokens per request, how many such requests fit).
        weights_gib: memory of the weights on one GPU, the largest of all ranks, in GiB.
        phases: seconds, the longest of all ranks.
        seconds: from the first dated line to the endpoint's start, or None.
    """

    version: str = ""
    backend: str = ""
    cache_tokens: tuple[int, ...] = ()
    cache_gib: float | None = None
    concurrency: tuple[int, float] | None = None
    weights_gib: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None

    @property
    def tokens(self) -> int | None:
        """KV cache of the smallest rank in tokens; None when the log does not say."""
        return min(self.cache_tokens) if self.cache_tokens else None


def parse(lines: Iterable[str]) -> EngineLog:
    """Read an engine's log; unknown and broken lines are skipped.

    Args:
        lines: with or without the prefixes of ranks and colours.
    """
    version, backend = "", ""
    tokens, memory, weights = list[int](), list[float](), list[float]()
    concurrency: tuple[int, float] | None = None
    phases: dict[str, float] = {}
    first = last = ready = None
    for line in lines:
        line = _ANSI.sub("", line)
        if stamp := _STAMP.search(line):
            last = _moment(stamp[1]) or last
            first = first or last
        if _READY in line:
            ready = ready or last
        if match := _VERSION.search(line):
            version = version or match[1].removeprefix("v")
        if match := _BACKEND.search(line):
            backend = backend or match[1]
        if match := _CACHE_TOKENS.search(line):
            tokens += [value for value in [_integer(match[1])] if value is not None]
        if match := _CONCURRENCY.search(line):
            size, times = _integer(match[1]), _decimal(match[2])
            concurrency = (size, times) if size is not None and times is not None else concurrency
        for pattern, values in ((_CACHE_GIB, memory), (_WEIGHTS_GIB, weights)):
            if match := pattern.search(line):
                values += [value for value in [_decimal(match[1])] if value is not None]
        for name, pattern in PHASES.items():
            match = pattern.search(line)
            took = _decimal(match[1]) if match else None
            if took is not None:
                phases[name] = max(took, phases.get(name, 0.0))
    return EngineLog(
        version=version,
        backend=backend,
        cache_tokens=tuple(tokens),
        cache_gib=min(memory) if memory else None,
        concurrency=concurrency,
        weights_gib=max(weights) if weights else None,
        phases=phases,
        seconds=_between(first, ready),
    )


def _integer(text: str) -> int | None:
    digits = text.replace(",", "")
    return int(digits) if digits.isdigit() and len(digits) < 19 else None


def _decimal(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "1.2.3" from a broken line
        return None


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(f"2000-{text}", "%Y-%m-%d %H:%M:%S")  # the log names no year; 2000 is a leap year
    except ValueError:
        return None


def _between(first: datetime | None, last: datetime | None) -> float | None:
    if first is None or last is None:
        return None
    elapsed = last - first
    if elapsed < timedelta(0):
        elapsed += timedelta(days=366)  # New Year
    # Anything longer comes from another start's lines, or from lines out of order.
    return elapsed.total_seconds() if elapsed < timedelta(days=2) else None
