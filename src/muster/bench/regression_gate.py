"""Did it get worse? New runs against kept ones, with the spread of repeated runs taken out.

A figure regressed when its mean is worse by more than the tolerance *and* by more than the scatter of repeated runs:
Student's t-test on the two means with pooled variance, one-sided, at 5 % shared by all figures compared (Bonferroni).
Runs of one scenario with one number of prompts repeat each other. Without repeats on either side the tolerance alone
decides, and the line says so.

A score of an evaluation regressed when it is lower by more than chance explains: the normal distribution with the
sampling errors of both sides, one-sided, at the same shared 5 %. That is a width of its own, so no tolerance is added.
Both sides answered the same questions, which makes the difference steadier than two independent samples: the test errs
towards passing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

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
        spread: relative change that repeats, or the sampling errors of scores, explain; None when nothing does.
        basis: what decided, in words.
        regressed: whether the change counts as a regression.
    """

    load: str
    figure: str
    before: float
    now: float
    runs: tuple[int, int]
    worse: float
    spread: float | None
    basis: str
    regressed: bool

    @property
    def text(self) -> str:
        """Return the comparison as a line."""
        change = (self.now - self.before) / self.before if self.before else 0.0
        mark = "WORSE" if self.regressed else "ok"
        return (
            f"{mark:<5} {self.load} {self.figure}: {self.before:,.4g} -> {self.now:,.4g} ({change:+.1%}; {self.basis})"
        )


def compare(baseline: Sequence[LedgerEntry], entries: Sequence[LedgerEntry], *, tolerance: float) -> list[Comparison]:
    """Compare every figure, or score of an evaluation, that both sides have.

    Args:
        baseline, entries: kept and new runs; failed ones are left out.
        tolerance: relative change of a figure that is always accepted, 0.05 for 5 %.

    Raises:
        Refusal: the two sides have no load in common.
    """
    before, now = _grouped(baseline), _grouped(entries)
    pairs = [
        (load, figure)
        for load in now
        if load in before
        for figure in _compared(now[load][0])
        if all(figure in _compared(entry) for entry in [*before[load], *now[load]])
    ]
    if not pairs:
        raise Refusal(
            f"the baseline has {_names(before)}; these runs are {_names(now)}",
            needed="a run of the same scenario, load and number of prompts on both sides",
            fix="run the baseline's scenario, or name another baseline",
        )
    alpha = ALPHA / len(pairs)
    return [
        _judge_score(load, figure, before[load], now[load], alpha=alpha)
        if now[load][0].kind == "eval"
        else _judge(load, figure, before[load], now[load], tolerance=tolerance, alpha=alpha)
        for load, figure in pairs
    ]


def _grouped(entries: Sequence[LedgerEntry]) -> dict[str, list[LedgerEntry]]:
    groups: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        if not entry.problems:
            groups.setdefault(entry.load_key, []).append(entry)
    return groups


def _compared(entry: LedgerEntry) -> list[str]:
    return list(entry.scores) if entry.kind == "eval" else [figure for figure in GATED if figure in entry.figures]


def _names(groups: dict[str, list[LedgerEntry]]) -> str:
    return ", ".join(groups) or "no completed run"


def _judge(
    load: str,
    figure: str,
    kept: Sequence[LedgerEntry],
    runs: Sequence[LedgerEntry],
    *,
    tolerance: float,
    alpha: float,
) -> Comparison:
    before, now = [run.figures[figure] for run in kept], [run.figures[figure] for run in runs]
    old, new = fmean(before), fmean(now)
    worse = (old - new if FIGURES[figure].direction > 0 else new - old) / old if old else 0.0
    explained = spread(before, now, alpha)
    regressed = worse > tolerance and (explained is None or worse > explained)
    basis = "not repeated, so the tolerance decides" if explained is None else f"repeats explain {explained:.1%}"
    return Comparison(load, figure, old, new, (len(before), len(now)), worse, explained, basis, regressed)


def _judge_score(
    load: str, name: str, kept: Sequence[LedgerEntry], runs: Sequence[LedgerEntry], *, alpha: float
) -> Comparison:
    before, now = [run.scores[name] for run in kept], [run.scores[name] for run in runs]
    old, new = fmean(value for value, _ in before), fmean(value for value, _ in now)
    # Repeats ask the same questions: they do not narrow what the choice of questions leaves open.
    error = math.hypot(fmean(error for _, error in before), fmean(error for _, error in now))
    explained = NormalDist().inv_cdf(1 - alpha) * error
    worse, relative = ((old - new) / old, explained / old) if old else (0.0, None)
    basis = f"chance explains {explained:.4f}"
    return Comparison(load, name, old, new, (len(before), len(now)), worse, relative, basis, old - new > explained)


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
