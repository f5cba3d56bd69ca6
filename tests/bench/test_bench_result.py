"""The tool's JSON, recorded and broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.bench import bench_result

RECORDED = Path(__file__).parent / "recorded"


def raw_result(**own: Any) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((RECORDED / "bench-serve-0.26.json").read_text(encoding="utf-8"))
    return raw | own


def test_a_recorded_run_on_two_h200s() -> None:
    result = bench_result.parse(raw_result())
    assert (result.prompts, result.completed, result.failed) == (8, 8, 0)
    assert result.output_throughput == pytest.approx(2160.14, abs=0.01)
    assert result.latency["mean_ttft_ms"] == pytest.approx(399.81, abs=0.01)
    assert result.latency["p99_tpot_ms"] == pytest.approx(3.56, abs=0.01)
    assert result.problems == ()


def test_a_recorded_run_on_cpus() -> None:
    result = bench_result.parse_text((RECORDED / "bench-serve-0.32.json").read_text(encoding="utf-8"))
    assert (result.prompts, result.completed, result.output_tokens) == (8, 8, 128)
    assert result.problems == ()


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ({"failed": 3, "completed": 5}, "3 of 8 requests failed"),
        ({"failed": 8, "completed": 0, "total_output_tokens": 0}, "8 of 8 requests failed"),
        ({"failed": 0, "completed": 6}, "6 of 8 requests completed"),
        ({"total_output_tokens": 0}, "no token was generated"),
    ],
)
def test_a_run_with_lost_requests_does_not_count(own: dict[str, Any], problem: str) -> None:
    assert problem in bench_result.parse(raw_result(**own)).problems


def test_a_version_that_counts_no_failures_is_counted_for() -> None:
    raw = raw_result(completed=5)
    del raw["failed"]
    assert bench_result.parse(raw).problems == ("3 of 8 requests failed",)


@pytest.mark.parametrize("name", ["completed", "num_prompts", "duration", "request_throughput", "total_input_tokens"])
@pytest.mark.parametrize("value", [None, "8", -1, float("nan"), float("inf"), True, [8], 10**400])
def test_an_impossible_figure_is_named(name: str, value: object) -> None:
    with pytest.raises(bench_result.UnreadableResult, match=name):
        bench_result.parse(raw_result(**{name: value}))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"completed": 8}', "\x00", "Traceback (most recent call last)"]
)
def test_a_broken_file_is_refused(text: str) -> None:
    with pytest.raises(bench_result.UnreadableResult):
        bench_result.parse_text(text)


def test_words_of_the_tool_are_printable() -> None:
    raw = raw_result(failed=1, completed=7, errors=[["\x1b]0;owned\x07\x1b[2Jrefused", 1]])
    assert bench_result.parse_text(json.dumps(raw)).errors == (("refused", 1),)


def test_not_a_number_is_left_out_of_the_latencies() -> None:
    assert "mean_tpot_ms" not in bench_result.parse_text(json.dumps(raw_result(mean_tpot_ms=float("nan")))).latency


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(raw_result())), JSON, max_size=6))
def test_any_other_value_is_read_or_refused(changes: dict[str, Any]) -> None:
    try:
        result = bench_result.parse(raw_result(**changes))
    except bench_result.UnreadableResult:
        return
    assert result.duration >= 0
    assert all(value >= 0 for value in result.latency.values())


def test_requests_that_generate_nothing_count_by_their_answers() -> None:
    lacking = ("failed", "total_output_tokens", "output_throughput")
    raw = {key: value for key, value in raw_result(backend="openai-embeddings").items() if key not in lacking}
    result = bench_result.parse(raw)
    assert (result.completed, result.failed, result.output_throughput, result.problems) == (8, 0, None, ())
    with pytest.raises(bench_result.UnreadableResult, match="total_output_tokens"):
        bench_result.parse(raw | {"backend": "openai"})
