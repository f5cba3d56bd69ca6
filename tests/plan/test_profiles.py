"""A strategy's profiles: what serves people by default, and the published command to the letter."""

from __future__ import annotations

import pytest

from muster.errors import Refusal
from muster.spec import recipe as recipes
from muster.spec.settings import Settings
from tests.sample_plans import hosts, plan

GUIDE = """
--trust-remote-code --tokenizer-mode auto --tensor-parallel-size 8 --pipeline-parallel-size 2 --dtype bfloat16
--quantization fp8 --max-model-len 2048 --max-num-seqs 1 --max-num-batched-tokens 1024 --enable-chunked-prefill
--kv-cache-dtype fp8
"""
"""The guide's command for 16 H800, but for --disable-log-requests, which vLLM no longer takes."""


def pairs(words: list[str]) -> set[tuple[str, ...]]:
    found: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            found.append([word])
        elif found:
            found[-1].append(word)
    return {tuple(pair) for pair in found}


def test_the_default_serves_long_contexts_and_tool_calls_to_many() -> None:
    made = plan("kimi-k2-instruct", 2, "H800")
    assert made.profile == "serving"
    assert made.tool_calling
    assert made.serves.startswith("contexts up to 65,536 tokens, 256 requests at once, tool calls; the cache holds ")


def test_the_published_command_is_the_guides() -> None:
    made = plan("kimi-k2-instruct", 2, "H800", profile="published")
    argv = list(made.hosts["h800-0"].processes[-1].argv)
    assert pairs(GUIDE.split()) <= pairs(argv)
    own = {pair[0] for pair in pairs(argv) - pairs(GUIDE.split())}
    assert own == {
        *("--port", "--distributed-executor-backend", "--shutdown-timeout", "--watchdog-config"),
        *("--decode-context-parallel-size", "--attention-backend"),  # -dcp 8, and the cure of a known fault
    }
    assert made.serves.startswith("contexts up to 2,048 tokens, 1 request at once, no tool calls; the cache holds 3,8")


def test_settings_win_over_a_profile() -> None:
    made = plan("kimi-k2-instruct", 2, "H800", max_model_len=32768, tool_calling=False)
    assert made.serves.startswith("contexts up to 32,768 tokens, 256 requests at once, no tool calls")


def test_an_unknown_profile_is_refused_with_the_nearest() -> None:
    with pytest.raises(Refusal, match="did you mean 'published'"):
        plan("kimi-k2-instruct", 2, "H800", profile="publised")


def test_a_strategy_without_profiles_takes_any() -> None:
    assert plan("kimi-k2-thinking", 1, "H200", profile="published").profile == ""


def test_each_rank_of_a_data_parallel_group_has_a_cache_of_its_own() -> None:
    assert "256 requests at once on each of 16 ranks" in plan("kimi-k2-instruct", 2, "H200").serves


def test_profiles_without_the_default_are_refused() -> None:
    raw = recipes.load("kimi-k2-instruct").model_dump()
    raw["strategies"]["tp-pp"]["profiles"].pop("serving")
    with pytest.raises(Refusal, match="needed: one called serving"):
        recipes.parse(raw, where="mine.yaml")


def test_samples_are_the_hosts_of_the_guide() -> None:
    assert len(hosts(2)) * hosts(2)[0].gpus == 16
    assert Settings().profile == "serving"
