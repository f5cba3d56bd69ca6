"""The limits in an engine's flags are read as vLLM reads them, wherever they were written."""

from __future__ import annotations

import pytest

from muster.errors import Refusal
from muster.plan.engine_limits import limits_of
from tests.sample_plans import plan


@pytest.mark.parametrize(
    ("value", "tokens"),
    [(25000, 25000), ("25000", 25000), ("25k", 25000), ("25K", 25600), ("1.5k", 1500), ("1m", 10**6), ("2M", 2 << 20)],
)
def test_a_context_is_read_with_its_unit(value: int | str, tokens: int) -> None:
    assert limits_of({"max-model-len": value}, "0.33.0").context == tokens


@pytest.mark.parametrize("flags", [{}, {"max-model-len": "auto"}, {"max-model-len": -1}])
def test_an_open_context_is_no_number(flags: dict[str, int | str]) -> None:
    assert limits_of(flags, "0.33.0").context is None


def test_defaults_follow_the_version() -> None:
    assert limits_of({}, "0.12.0").utilization == 0.90
    assert limits_of({}, "0.33.0").utilization == 0.92


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("max-model-len", "lots"),
        ("max-model-len", "1.5K"),
        ("max-model-len", ""),
        ("max-model-len", 0),
        ("max-num-seqs", True),
        ("max-num-batched-tokens", "-5"),
        ("gpu-memory-utilization", "most"),
        ("gpu-memory-utilization", "nan"),
        ("gpu-memory-utilization", 0),
    ],
)
def test_what_is_no_number_is_refused_by_name(flag: str, value: int | str) -> None:
    with pytest.raises(Refusal, match=f"(?s)--{flag} is .*needed: a"):
        limits_of({flag: value}, "0.33.0")


def test_limits_in_extra_args_are_what_the_plan_says_it_serves() -> None:
    words = ["--max-model", "8k", "--max_num_seqs=7", "--kv-cache-d", "fp8", "--gpu-memory-utilization", "0.8"]
    made = plan("kimi-k2-thinking", 1, "H200", extra_args=words)
    assert made.serves.startswith("contexts up to 8,000 tokens, 7 requests at once")
    assert made.memory is not None
    assert (made.memory.needed_tokens, made.memory.utilization) == (8000, 0.8)
    assert made.memory.token_bytes < plan("kimi-k2-thinking", 1, "H200").memory.token_bytes  # type: ignore[union-attr]


def test_a_context_of_auto_is_shortened_by_the_engine() -> None:
    made = plan("kimi-k2-thinking", 1, "H20", strategy="tp", extra_args=["--max-model-len", "auto"])
    assert made.hosts["h20-0"].processes[-1].argv.count("--max-model-len") == 1
