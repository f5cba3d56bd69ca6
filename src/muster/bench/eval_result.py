"""Results of lm_eval: scores with their standard errors, and whether they agree with published ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.bench.bench_result import UnreadableResult

FILTERS = {"flexible-extract": "flexible", "strict-match": "strict"}
PUBLISHED_QUESTIONS = 1319
"""Questions of GSM8K's test set; a published score carries the sampling error of that many."""
WIDTH = 1.96
"""Standard errors that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Score:
    """One score.

    Args:
        name: `gsm8k exact_match (flexible)`, as the recipes publish it.
        value: share of right answers, 0 to 1.
        error: standard error of `value`.
        questions: how many were asked.
    """

    name: str
    value: float
    error: float
    questions: int

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval: how far chance alone may move the score."""
        return WIDTH * self.error

    def agrees(self, published: float) -> bool:
        """Whether chance explains the difference from a published score, which has a sampling error too."""
        other = math.sqrt(published * (1 - published) / PUBLISHED_QUESTIONS)
        return abs(self.value - published) <= WIDTH * math.hypot(self.error, other)


def parse(raw: object) -> list[Score]:
    """Read lm_eval's results JSON.

    Raises:
        UnreadableResult: no task, no exact_match, or a score that is no share.
    """
    results = _mapping(_mapping(raw, "the file").get("results"), "'results'")
    samples = raw.get("n-samples") if isinstance(raw, Mapping) else None
    scores = []
    for task, result in results.items():
        if not isinstance(result, Mapping):
            continue
        for key, label in FILTERS.items():
            if f"exact_match,{key}" in result:
                scores.append(_score(str(task), result, key, label, _questions(samples, task, result)))
    if not scores:
        raise UnreadableResult(f"no exact_match in the results of {', '.join(map(str, results)) or 'no task'}")
    return scores


def _score(task: str, result: Mapping[str, Any], key: str, label: str, questions: int) -> Score:
    value, error = result[f"exact_match,{key}"], result.get(f"exact_match_stderr,{key}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UnreadableResult(f"exact_match,{key} of {task} is {str(value)[:40]}; needed: a share from 0 to 1")
    if isinstance(error, bool) or not isinstance(error, int | float) or not 0 <= error <= 1:  # "N/A" for one question
        error = math.sqrt(value * (1 - value) / questions) if questions else 0.5
    name = f"{task.removesuffix('_local')} exact_match ({label})"
    return Score(name, float(value), float(error), questions)


def _questions(samples: object, task: object, result: Mapping[str, Any]) -> int:
    counted = samples.get(task) if isinstance(samples, Mapping) else None
    count = counted.get("effective") if isinstance(counted, Mapping) else result.get("sample_len")
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UnreadableResult(f"{what} is {type(value).__name__}; needed: lm_eval's results")
    return value
