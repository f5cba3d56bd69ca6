"""Scenarios of the recipes and the commands they become."""

from __future__ import annotations

from typing import Any

import pytest

from muster.bench import scenario
from muster.errors import Refusal
from muster.guard.endpoint_kinds import KINDS
from muster.spec import recipe


def command(load: scenario.Scenario, prompts: int) -> list[str]:
    return scenario.argv(
        load,
        prompts=prompts,
        base_url="http://127.0.0.1:8000",
        model="moonshotai/Kimi-K2-Instruct",
        served_model_name="kimi-k2",
        result_dir="/var/lib/muster/k2/bench",
        result_filename="result.json",
        metadata={"digest": "0123"},
    )


def test_the_seeds_bench_with_flags_in_full_and_the_served_name() -> None:
    load = scenario.scenarios(recipe.load("kimi-k2-instruct"))["h800"]
    assert command(load, 8) == [
        *("vllm", "bench", "serve", "--base-url", "http://127.0.0.1:8000", "--model", "moonshotai/Kimi-K2-Instruct"),
        *("--served-model-name", "kimi-k2", "--dataset-name", "random"),
        *("--random-input-len", "1000", "--random-output-len", "512", "--request-rate", "1.0", "--num-prompts", "8"),
        *("--ignore-eos", "--trust-remote-code"),
        *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,95,99"),
        *("--disable-tqdm", "--save-result", "--save-detailed", "--result-dir", "/var/lib/muster/k2/bench"),
        *("--result-filename", "result.json", "--metadata", "digest=0123"),
    ]


def test_the_sweep_is_the_seeds() -> None:
    known = scenario.scenarios(recipe.load("kimi-k2-instruct"))
    assert known["h200"].prompts(sweep=True) == (1, 16, 32, 64, 128, 256, 512)
    assert known["h200"].prompts(sweep=False) == (16,)
    with pytest.raises(Refusal, match="has no sweep"):
        known["h800"].prompts(sweep=True)


def test_thinking_is_measured_without_ignoring_the_end_of_an_answer() -> None:
    load = scenario.scenarios(recipe.load("kimi-k2-thinking"))["h200"]
    assert load.prompts(sweep=False) == (1000,)
    assert "--ignore-eos" not in command(load, 1000)


def test_the_scenario_of_the_hosts_gpus_is_picked() -> None:
    loaded = recipe.load("kimi-k2-instruct")
    assert [load.name for load in scenario.pick(loaded, [], gpu="H200")] == ["h200"]
    assert [load.name for load in scenario.pick(loaded, [], gpu="H20")] == ["h800"]
    assert [load.name for load in scenario.pick(loaded, ["h200", "h800"])] == ["h200", "h800"]
    with pytest.raises(Refusal, match="did you mean 'h200'"):
        scenario.pick(loaded, ["h20O"])


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"random-input": 8000}, "did you mean 'random-input-len'"),
        ({"model": "x"}, "unknown benchmark key 'model'"),
        ({"num-prompts": 0}, "at least 1"),
        ({"num-prompts": True}, "at least 1"),
        ({"sweep": [1, "16"]}, "list of such numbers"),
        ({"sweep": 16}, "list of such numbers"),
        ({"request-rate": [1]}, "needed: a number"),
    ],
)
def test_a_wrong_scenario_is_refused(own: dict[str, Any], message: str) -> None:
    loaded = recipe.load("kimi-k2-instruct").model_copy(update={"bench": {"mine": {"num-prompts": 1} | own}})
    with pytest.raises(Refusal, match=message):
        scenario.scenarios(loaded)


@pytest.mark.parametrize(
    ("flags", "tokens"),
    [
        ({"random-input-len": 1000, "random-output-len": 512}, 1512),
        (
            {"random-input-len": 1000, "random-output-len": 500, "random-range-ratio": 0.5, "random-prefix-len": 10},
            2260,
        ),
        ({}, 1024 + 128),
        ({"dataset-name": "sharegpt", "sharegpt-output-len": 300}, 300),
    ],
)
def test_the_longest_request_is_held_against_what_is_served(flags: dict[str, Any], tokens: int) -> None:
    load = scenario.Scenario("mine", "", {"num-prompts": 1, **flags})
    assert scenario.longest(load) == tokens
    scenario.require_served([load], tokens)
    scenario.require_served([load], None)
    with pytest.raises(Refusal, match=f"requests of {tokens:,} tokens, and {tokens - 1:,} are served"):
        scenario.require_served([load], tokens - 1)


def test_a_model_that_answers_no_completions_is_loaded_by_its_own_backend() -> None:
    load = scenario.Scenario("x", "", {"num-prompts": 4})
    words = scenario.argv(
        load,
        prompts=4,
        base_url="http://127.0.0.1:8000",
        model="m",
        served_model_name="m",
        result_dir="/d",
        result_filename="r",
        backend=KINDS["reranking"].bench,
    )
    at = words.index("--backend")
    assert words[at : at + 4] == ["--backend", "vllm-rerank", "--endpoint", "/v1/rerank"]
