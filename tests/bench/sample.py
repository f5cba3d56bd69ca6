"""Made-up ledger entries for tests."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from muster.bench.ledger import STANDARD_ERROR, LedgerEntry


def entry(number: int = 1, *, session: str = "20260101T000000Z-aaaa", **own: Any) -> LedgerEntry:
    """Return one entry; `own` replaces fields."""
    fields: dict[str, Any] = {
        "id": f"{session}-bench-{number:03d}",
        "kind": "bench",
        "session": session,
        "at": f"2026-01-01T00:{number:02d}:00Z",
        "recipe": "kimi-k2-thinking",
        "strategy": "tp",
        "label": "TP8",
        "model": "moonshotai/Kimi-K2-Thinking",
        "digest": "0123456789abcdef",
        "release": "vllm-0.33.0-py3.12-00000000",
        "vllm_version": "0.33.0",
        "scenario": "h200",
        "prompts": 64,
        "hardware": "8x NVIDIA H200",
        "driver": "580.1",
        "load": {"random-input-len": 8000, "random-output-len": 4000},
        "figures": {"request_throughput": 1.25, "output_throughput": 485.78, "mean_ttft_ms": 271200.0},
    }
    return LedgerEntry(**(fields | own))


def evaluation(right: int, questions: int, number: int = 1, **own: Any) -> LedgerEntry:
    """Return a run of GSM8K with so many right answers; `own` replaces fields."""
    value = right / questions
    error = math.sqrt(value * (1 - value) / max(questions - 1, 1))
    names = [f"gsm8k exact_match ({filter})" for filter in ("flexible", "strict")]
    figures = {**dict.fromkeys(names, value), **dict.fromkeys([name + STANDARD_ERROR for name in names], error)}
    fields = {"kind": "eval", "scenario": "gsm8k", "prompts": questions, "load": {"fewshot": 5}, "figures": figures}
    return entry(number, **{"id": f"20260101T000000Z-aaaa-eval-{number:03d}", **fields, **own})


def repeats(
    count: int, *, factor: float = 1.0, noise: float = 0.0, seed: int = 0, session: str = "20260101T000000Z-aaaa"
) -> Sequence[LedgerEntry]:
    """Return repeats whose throughput is `factor` of the usual, with normal noise of relative width `noise`."""
    dice = random.Random(seed)
    entries = []
    for number in range(1, count + 1):
        speed = factor * (1 + dice.gauss(0, noise))
        latency = (1 + dice.gauss(0, noise)) / factor
        figures = {
            "request_throughput": 2.0 * speed,
            "output_throughput": 1000.0 * speed,
            "mean_ttft_ms": 500.0 * latency,
            "mean_tpot_ms": 20.0 * latency,
        }
        entries.append(entry(number, session=session, figures=figures))
    return entries
