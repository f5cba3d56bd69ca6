"""Combinations that kill engines are planned with their cure, or not at all."""

from __future__ import annotations

import pytest

from muster.errors import Refusal
from muster.plan.flags_in_argv import values_of
from muster.plan.known_faults import FAULTS
from muster.plan.types import Plan
from tests.sample_plans import plan


def backend(made: Plan) -> str | None:
    argv = next(iter(made.hosts.values())).processes[-1].argv
    return argv[argv.index("--attention-backend") + 1] if "--attention-backend" in argv else None


def planned(gpu: str, **settings: object) -> Plan:
    """Return the published command's plan: an FP8 cache with DCP8."""
    return plan("kimi-k2-instruct", 2, gpu, profile="published", **settings)


def test_an_fp8_cache_with_dcp_gets_a_backend_that_runs() -> None:
    made = planned("H800")
    assert backend(made) == "TRITON_MLA"
    [note] = [warning for warning in made.warnings if "fp8-cache-dcp-flashmla" in warning]
    assert "vLLM 0.33.0" in note


@pytest.mark.parametrize(
    "harmless",
    [
        {"decode_context_parallel_size": 1},
        {"extra_args": ["--kv-cache-dtype", "auto"]},
        {"extra_args": ["--attention_backend=TRITON_MLA"]},
    ],
)
def test_without_the_combination_nothing_is_set(harmless: dict[str, object]) -> None:
    made = planned("H800", **harmless)
    assert backend(made) is None
    assert not any("fp8-cache-dcp-flashmla" in warning for warning in made.warnings)


def test_piecewise_graphs_do_not_help() -> None:
    graphs = ["--compilation-config", '{"cudagraph_mode":"PIECEWISE"}']
    assert backend(planned("H800", extra_args=graphs)) == "TRITON_MLA"


@pytest.mark.parametrize("words", [["--attention-backend", "FLASHMLA"], ["--attention_back=flashmla"]])
def test_what_is_seen_to_die_is_planned_only_when_allowed(words: list[str]) -> None:
    with pytest.raises(Refusal, match=r"(?s)block table.*needed: .*0\.33\.0.*allow_known_fault"):
        planned("H800", extra_args=words)
    made = planned("H800", extra_args=words, allow_known_fault=True)
    assert any("planned as asked" in warning for warning in made.warnings)


def test_kept_weights_of_experts_are_planned_only_when_allowed() -> None:
    words = ["--load-format", "ipc_cache"]
    with pytest.raises(
        Refusal, match=r"(?s)vllm preload.*fix: +drop --load-format from extra_args, or set allow_known"
    ):
        plan("kimi-k2-instruct", 2, "H200", extra_args=words)
    made = plan("kimi-k2-instruct", 2, "H200", extra_args=words, allow_known_fault=True)
    assert any("ipc-cache-moe" in warning for warning in made.warnings)


def test_a_cache_made_fp8_by_the_user_counts() -> None:
    made = plan("kimi-k2-thinking", 1, "H200", strategy="tp-dcp", extra_args=["--kv_cache_dtype=fp8_e4m3"])
    assert backend(made) == "TRITON_MLA"


def test_every_fault_says_where_it_was_seen() -> None:
    assert all(fault.source and fault.what and fault.cure for fault in FAULTS)


def test_words_are_read_as_the_parser_reads_them() -> None:
    words = ["--a_b", "1", "--c=x=y", "--flag", "--d", "2", "-tp", "8"]
    assert values_of(words) == {"a-b": "1", "c": "x=y", "flag": "", "d": "2"}


def test_beginnings_of_flags_are_written_out_and_flags_of_their_own_are_not() -> None:
    words = ["--max-model", "1", "--tokenizer", "x", "--tokenizer-mode", "y", "--max-num", "2", "--rev=z"]
    found = {"max-model-len": "1", "tokenizer": "x", "tokenizer-mode": "y", "max-num": "2", "revision": "z"}
    assert values_of(words) == found
