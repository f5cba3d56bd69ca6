"""The gate: a made-up regression is flagged, noise of the same size is not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from muster.bench import regression_gate
from muster.errors import Refusal
from tests.bench.sample import entry, evaluation, repeats

# Student's t, one-sided, from printed tables: (probability, degrees of freedom, t).
TABLE = [
    (0.05, 1, 6.314),
    (0.05, 2, 2.920),
    (0.05, 4, 2.132),
    (0.05, 10, 1.812),
    (0.025, 5, 2.571),
    (0.01, 7, 2.998),
    (0.005, 30, 2.750),
    (0.001, 3, 10.215),
]


@pytest.mark.parametrize(("alpha", "freedom", "t"), TABLE)
def test_quantiles_are_those_of_printed_tables(alpha: float, freedom: int, t: float) -> None:
    assert regression_gate.t_quantile(alpha, freedom) == pytest.approx(t, abs=0.001)


def test_a_slowdown_beyond_the_spread_is_flagged() -> None:
    verdicts = regression_gate.compare(
        repeats(3, noise=0.01, seed=1), repeats(3, factor=0.8, noise=0.01, seed=2), tolerance=0.05
    )
    assert {verdict.figure for verdict in verdicts if verdict.regressed} == {
        "request_throughput",
        "output_throughput",
        "mean_ttft_ms",
        "mean_tpot_ms",
    }


def test_a_speedup_is_no_regression() -> None:
    verdicts = regression_gate.compare(
        repeats(3, noise=0.01, seed=1), repeats(3, factor=1.3, noise=0.01, seed=2), tolerance=0.05
    )
    assert not any(verdict.regressed for verdict in verdicts)
    assert all(verdict.worse < 0 for verdict in verdicts)


def test_noise_as_wide_as_the_slowdown_is_rarely_flagged() -> None:
    """Runs that only scatter, by 20 %, against each other: at most one comparison in twenty may be flagged."""
    flagged = sum(
        any(
            verdict.regressed
            for verdict in regression_gate.compare(
                repeats(3, noise=0.2, seed=2 * trial), repeats(3, noise=0.2, seed=2 * trial + 1), tolerance=0.05
            )
        )
        for trial in range(400)
    )
    assert flagged <= 400 * 0.05


def test_a_change_within_the_tolerance_passes_however_steady_the_runs() -> None:
    verdicts = regression_gate.compare(repeats(3), repeats(3, factor=0.96), tolerance=0.05)
    assert [verdict.spread for verdict in verdicts] == [pytest.approx(0, abs=1e-9)] * 4
    assert not any(verdict.regressed for verdict in verdicts)


@pytest.mark.parametrize(("factor", "flagged"), [(0.94, True), (0.96, False)])
def test_without_repeats_the_tolerance_decides_and_says_so(factor: float, flagged: bool) -> None:
    throughput = regression_gate.compare(repeats(1), repeats(1, factor=factor), tolerance=0.05)[0]
    assert throughput.regressed is flagged
    assert "not repeated" in throughput.text


def test_one_new_run_is_judged_by_the_spread_of_the_baseline() -> None:
    # Mean 1000, deviation 79: one further run may lie 184 below, at 5 %.
    before = [entry(n, figures={"output_throughput": speed}) for n, speed in enumerate((900.0, 1000, 1100, 950, 1050))]
    slower = regression_gate.compare(before, [entry(9, figures={"output_throughput": 850.0})], tolerance=0.05)[0]
    much_slower = regression_gate.compare(before, [entry(9, figures={"output_throughput": 400.0})], tolerance=0.05)[0]
    assert not slower.regressed
    assert much_slower.regressed


def test_a_smaller_cache_is_a_regression() -> None:
    before, now = (entry(figures={"kv_cache_tokens": tokens}) for tokens in (5_721_088.0, 715_072.0))
    assert [verdict.regressed for verdict in regression_gate.compare([before], [now], tolerance=0.05)] == [True]


def test_failed_runs_and_other_loads_are_not_compared() -> None:
    failed = [replace(run, problems=("1 of 64 requests failed",)) for run in repeats(3)]
    other = [replace(run, prompts=8) for run in repeats(3)]
    for new in (failed, other):
        with pytest.raises(Refusal, match="same scenario"):
            regression_gate.compare(repeats(3), new, tolerance=0.05)


@pytest.mark.parametrize(
    ("before", "now", "questions", "worse"),
    [(94, 86, 100, False), (94, 85, 100, True), (1240, 1215, 1319, False), (1240, 1214, 1319, True)],
)
def test_a_score_is_worse_where_it_fell_by_more_than_chance_explains(
    before: int, now: int, questions: int, worse: bool
) -> None:
    # By hand: 1.96 standard errors of the difference are 0.0824 and 0.0845, 0.0193 and 0.0194; the falls 0.08, 0.09,
    # 0.0190 and 0.0197.
    verdicts = regression_gate.compare([evaluation(before, questions)], [evaluation(now, questions)], tolerance=0.05)
    assert [verdict.regressed for verdict in verdicts] == [worse, worse]
    assert all("chance explains" in verdict.text for verdict in verdicts)


def test_a_better_score_is_no_regression_nor_one_from_nothing() -> None:
    for before, now in ((80, 95), (0, 50), (100, 100)):
        verdicts = regression_gate.compare([evaluation(before, 100)], [evaluation(now, 100)], tolerance=0.05)
        assert not any(verdict.regressed for verdict in verdicts)
    none_right = regression_gate.compare([evaluation(100, 100)], [evaluation(0, 100)], tolerance=0.05)
    assert all(verdict.regressed for verdict in none_right)


def test_repeated_evaluations_do_not_narrow_what_chance_explains() -> None:
    now = [evaluation(86, 100, 9)]
    for repeated in (1, 50):
        before = [evaluation(94, 100, number) for number in range(repeated)]
        assert not any(verdict.regressed for verdict in regression_gate.compare(before, now, tolerance=0.05))


def test_an_unchanged_model_rarely_fails_by_its_score() -> None:
    """Answers that are right by the same chance, 0.94 of 200, on both sides: one comparison in twenty at most."""
    dice = random.Random(0)

    def score() -> int:
        return sum(dice.random() < 0.94 for _ in range(200))

    flagged = sum(
        any(
            verdict.regressed
            for verdict in regression_gate.compare(
                [evaluation(score(), 200)], [evaluation(score(), 200)], tolerance=0.05
            )
        )
        for _ in range(400)
    )
    assert flagged <= 400 * 0.05


@pytest.mark.parametrize("other", [{"load": {"fewshot": 0}}, {"prompts": 200}])
def test_a_score_of_other_questions_or_examples_is_not_compared(other: dict[str, object]) -> None:
    with pytest.raises(Refusal, match="these runs are gsm8k"):
        regression_gate.compare([evaluation(94, 100)], [replace(evaluation(94, 100), **other)], tolerance=0.05)  # type: ignore[arg-type]
