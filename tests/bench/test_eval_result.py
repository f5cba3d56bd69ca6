"""lm_eval's results and command."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from muster.bench import eval_result, eval_task

MODEL_ARGS = (
    "model=kimi-k2,base_url=http://127.0.0.1:8000/v1/completions,num_concurrent=32,"
    "tokenized_requests=False,tokenizer_backend=None,timeout=3000"
)
FLEXIBLE, STRICT = "exact_match,flexible-extract", "exact_match,strict-match"


def raw_result(**own: Any) -> dict[str, Any]:
    scores = {
        "alias": "gsm8k",
        FLEXIBLE: 0.9416,
        "exact_match_stderr,flexible-extract": 0.0065,
        STRICT: 0.9409,
        "exact_match_stderr,strict-match": 0.0065,
    }
    return {
        "results": {"gsm8k": scores | own},
        "n-samples": {"gsm8k": {"original": 1319, "effective": 1319}},
    }


def test_the_seeds_table() -> None:
    flexible, strict = eval_result.parse(raw_result())
    assert (flexible.name, flexible.value) == ("gsm8k exact_match (flexible)", 0.9416)
    assert (strict.name, strict.value, strict.questions) == ("gsm8k exact_match (strict)", 0.9409, 1319)
    assert flexible.margin == pytest.approx(0.0127, abs=0.0001)


def test_the_seeds_two_shapes_differ_by_less_than_chance() -> None:
    flexible = eval_result.parse(raw_result())[0]
    assert flexible.agrees(0.9386)
    assert not flexible.agrees(0.90)


def test_a_score_of_few_questions_agrees_with_much() -> None:
    few = eval_result.Score("gsm8k exact_match (strict)", 0.8, 0.1333, 10)
    assert few.agrees(0.94)
    assert not few.agrees(0.3)


def test_a_missing_standard_error_is_worked_out() -> None:
    assert eval_result.parse(raw_result(**{"exact_match_stderr,strict-match": "N/A"}))[1].error == pytest.approx(
        0.0065, abs=1e-4
    )


def test_a_local_task_is_named_as_the_published_one() -> None:
    raw = {"results": {"gsm8k_local": {STRICT: 0.5}}, "n-samples": {"gsm8k_local": {"effective": 4}}}
    assert eval_result.parse(raw) == [eval_result.Score("gsm8k exact_match (strict)", 0.5, 0.25, 4)]


@pytest.mark.parametrize("raw", [None, [], {}, {"results": []}, {"results": {}}, {"results": {"gsm8k": {"acc": 1}}}])
def test_a_file_without_scores_is_refused(raw: object) -> None:
    with pytest.raises(eval_result.UnreadableResult):
        eval_result.parse(raw)


@pytest.mark.parametrize("value", [1.5, -0.1, "0.94", None, True, float("nan")])
def test_a_score_that_is_no_share_is_refused(value: object) -> None:
    with pytest.raises(eval_result.UnreadableResult, match="strict-match"):
        eval_result.parse(raw_result(**{STRICT: value}))


ANY = st.none() | st.booleans() | st.floats() | st.text(max_size=4) | st.dictionaries(st.text(max_size=3), st.none())


@given(st.dictionaries(st.sampled_from([FLEXIBLE, STRICT, "exact_match_stderr,strict-match", "sample_len"]), ANY), ANY)
def test_any_other_value_is_read_or_refused(changes: dict[str, Any], samples: object) -> None:
    try:
        scores = eval_result.parse({**raw_result(**changes), "n-samples": samples})
    except eval_result.UnreadableResult:
        return
    assert all(0 <= score.value <= 1 and score.margin >= 0 for score in scores)


def test_the_command() -> None:
    words = eval_task.argv(
        program="/opt/muster/tools/lm-eval/bin/lm_eval",
        base_url="http://127.0.0.1:8000",
        served_model_name="kimi-k2",
        output="/tmp/out",
        limit=100,
    )
    assert words == [
        *("/opt/muster/tools/lm-eval/bin/lm_eval", "--model", "local-completions", "--tasks", "gsm8k"),
        *("--num_fewshot", "5", "--model_args"),
        MODEL_ARGS,
        *("--output_path", "/tmp/out", "--limit", "100"),
    ]


def test_the_task_from_files_is_the_published_one() -> None:
    task = yaml.safe_load(eval_task.local_task("/srv/gsm8k"))
    assert task["dataset_kwargs"]["data_files"]["test"] == "/srv/gsm8k/test.jsonl"
    assert task["doc_to_text"] == "Question: {{question}}\nAnswer:"
    assert task["filter_list"][0]["filter"][0]["regex_pattern"] == r"#### (\-?[0-9\.\,]+)"
    assert task["filter_list"][1]["filter"][0]["regex_pattern"] == r"(-?[$0-9.,]{2,})|(-?[0-9]+)"
    assert task["metric_list"][0]["regexes_to_ignore"] == [",", r"\$", "(?s).*#### ", r"\.$"]
