"""Did it get worse? New runs against kept ones, with the spread of repeated runs taken out.

A figure regressed when its mean is worse by more than the tolerance *and* by more than the scatter of repeated runs:
Student's t-test on the two means with pooled variance, one-sided, at 5 % shared by all figures compared (Bonferroni).
Runs of one scenario with one number of prompts repeat each other. Without repeats on either side the tolerance alone
decides, and the line says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from muster.bench.figures import FIGURES, GATED
from muster.bench.ledger import LedgerEntry
from muster.errors import Refusal

ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """One figure of one load, before and now.

    Args:
        load: scenario and number of prompts, in words.
        figure: its name.
        before, now: means.
        runs: (repeats before, repeats now).
        worse: relative change for the worse; negative is better.
        spread: relative change that repeats explain; None when nothing was repeated.
        regressed: whether the change counts as a regression.
    """

    load: str
    figure: str
    before: float
    now: float
    runs: tuple[int, int]
    worse: float
    spread: float | None
    regressed: bool

    @property
    def text(self) -> str:
        """Return the comparison as a line."""
        change = (self.now - self.before) / self.before if self.before else 0.0
        basis = (
            "not repeated, so the tolerance decides" if self.spread is None else f"repeats explain {self.spread:.1%}"
        )
        mark = "WORSE" if self.regressed else "ok"
        return f"{mark:<5} {self.load} {self.figure}: {self.before:,.4g} -> {self.now:,.4g} ({change:+.1%}; {basis})"


def compare(baseline: Sequence[LedgerEntry], entries: Sequence[LedgerEntry], *, tolerance: float) -> list[Comparison]:
    """Compare every figure that both sides have.

    Args:
        baseline, entries: kept and new runs; failed ones are left out.
        tolerance: relative change that is always accepted, 0.05 for 5 %.

    Raises:
        Refusal: the two sides have no load in common.
    """
    before, now = _grouped(baseline), _grouped(entries)
    pairs = [
        (load, figure, [e.figures[figure] for e in before[load]], [e.figures[figure] for e in now[load]])
        for load in now
        if load in before
        for figure in GATED
        if all(figure in entry.figures for entry in [*before[load], *now[load]])
    ]
    if not pairs:
        raise Refusal(
            f"the baseline has {_names(before)}; these runs are {_names(now)}",
            needed="a run of the same scenario, load and number of prompts on both sides",
            fix="run the baseline's scenario, or name another baseline",
        )
    return [_judge(*pair, tolerance=tolerance, alpha=ALPHA / len(pairs)) for pair in pairs]


def _grouped(entries: Sequence[LedgerEntry]) -> dict[str, list[LedgerEntry]]:
    groups: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        if entry.kind == "bench" and not entry.problems:
            groups.setdefault(entry.load_key, []).append(entry)
    return groups


def _names(groups: dict[str, list[LedgerEntry]]) -> str:
    return ", ".join(groups) or "no completed run"


def _judge(
    load: str, figure: str, before: list[float], now: list[float], *, tolerance: float, alpha: float
) -> Comparison:
    old, new = sum(before) / len(before), sum(now) / len(now)
    worse = (old - new if FIGURES[figure].direction > 0 else new - old) / old if old else 0.0
    explained = spread(before, now, alpha)
    regressed = worse > tolerance and (explained is None or worse > explained)
    return Comparison(load, figure, old, new, (len(before), len(now)), worse, explained, regressed)


def spread(before: Sequence[float], now: Sequence[float], alpha: float) -> float | None:
    """Return the relative change of means that repeats explain at `alpha`, one-sided; None without repeats."""
    old, new = sum(before) / len(before), sum(now) / len(now)
    freedom = len(before) + len(now) - 2
    if not freedom or not old:
        return None
    squares = sum((x - old) ** 2 for x in before) + sum((x - new) ** 2 for x in now)
    error = math.sqrt(squares / freedom * (1 / len(before) + 1 / len(now)))
    return t_quantile(alpha, freedom) * error / old


def t_tail(t: float, freedom: int) -> float:
    """Return the probability that Student's t with `freedom` degrees exceeds `t` (t at least 0).

    The finite series for whole degrees of freedom: Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine, total = math.cos(angle), 0.0
    odd = freedom % 2
    term = cosine if odd else 1.0
    for step in range((freedom - 1) // 2 if odd else freedom // 2):
        total += term
        term *= cosine**2 * ((2 * step + 2) / (2 * step + 3) if odd else (2 * step + 1) / (2 * step + 2))
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return (1 - inside) / 2


def t_quantile(alpha: float, freedom: int) -> float:
    """Return the t that is exceeded with probability `alpha` (less than a half)."""
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > alpha:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > alpha else (low, middle)
    return high
