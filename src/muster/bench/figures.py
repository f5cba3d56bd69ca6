"""The figures of a run, each named once: its key in the ledger, its words and unit, and which way is better. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LATENCIES = ("ttft", "tpot", "itl", "e2el")
"""Latencies as `vllm bench serve` names them: first token, per output token, between tokens, end to end."""
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure.

    Args:
        key: in the ledger.
        words: for a report.
        unit: of the kept number.
        direction: +1 where more is better, -1 where less is.
    """

    key: str
    words: str
    unit: str
    direction: int


FIGURES: Mapping[str, FigureKind] = {
    kind.key: kind
    for kind in (
        FigureKind("request_throughput", "Request throughput", "req/s", 1),
        FigureKind("output_throughput", "Output token throughput", "tok/s", 1),
        FigureKind("mean_ttft_ms", "Mean TTFT", "ms", -1),
        FigureKind("p99_ttft_ms", "p99 TTFT", "ms", -1),
        FigureKind("mean_tpot_ms", "Mean TPOT", "ms", -1),
        FigureKind("p99_tpot_ms", "p99 TPOT", "ms", -1),
        FigureKind("kv_cache_tokens", "KV cache", "tokens", 1),
    )
}
GATED = ("request_throughput", "output_throughput", "mean_ttft_ms", "mean_tpot_ms", "kv_cache_tokens")
"""Figures that the regression gate compares; tails scatter too much for a few repeats."""
