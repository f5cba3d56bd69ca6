"""The memory table against published figures."""

from __future__ import annotations

import pytest

from muster.spec.hardware import GIB
from tests.sample_plans import plan

# Published by the recipe: TP8 715,072 tokens, TP8+DCP8 5,721,088 tokens, 8x H200, vLLM 0.12 (90 % of the memory).
SEED = {"vllm_version": "0.12.0", "max_model_len": 131072}


@pytest.mark.parametrize(("strategy", "published"), [("tp", 715_072), ("tp-dcp", 5_721_088)])
def test_cache_tokens_are_within_two_percent_of_the_published_figure(strategy: str, published: int) -> None:
    memory = plan("kimi-k2-thinking", 1, "H200", strategy=strategy, **SEED).memory
    assert memory is not None
    assert memory.tokens == pytest.approx(published, rel=0.02)


def test_a_token_of_mla_cache_takes_61_layers_of_576_bf16_values() -> None:
    memory = plan("kimi-k2-thinking", 1, "H200").memory
    assert memory is not None
    assert memory.token_bytes == 61 * 576 * 2 == 70_272


def test_weights_sum_to_what_lies_on_disk() -> None:
    """TP1 on one imagined GPU holds the whole model: 1,029 GB of FP8, 594 GB of INT4."""
    for name, gigabytes in (("kimi-k2-instruct", 1029), ("kimi-k2-thinking", 594)):
        count = 2 if name.endswith("instruct") else 1
        strategy = "dp-ep" if count == 2 else "tp"
        memory = plan(name, count, "H200", 1, strategy=strategy, allow_oversubscription=True).memory
        assert memory is not None
        ways = {"routed experts": count}
        weights = sum(
            p.bytes * ways.get(p.name, 1) for p in memory.parts if p.name not in ("allowance", "MLA, absorbed")
        )
        assert weights / 1e9 == pytest.approx(gigabytes, rel=0.005)


def test_dp16_on_80_gb_leaves_less_than_nothing() -> None:
    memory = plan("kimi-k2-instruct", 2, "H800", strategy="dp-ep", allow_oversubscription=True).memory
    assert memory is not None
    assert memory.cache < 0
    assert memory.tokens == 0
    parts = {part.name: part.bytes / GIB for part in memory.parts}
    assert parts["routed experts"] == pytest.approx(59.1, abs=0.05)
    assert sum(parts[n] for n in parts if n not in ("routed experts", "allowance", "MLA, absorbed")) == pytest.approx(
        13.3, abs=0.1
    )


def test_h20_holds_about_a_hundred_thousand_tokens_and_dcp_eight_times_that() -> None:
    tp, dcp = (plan("kimi-k2-thinking", 1, "H20", strategy=s).memory for s in ("tp", "tp-dcp"))
    assert tp is not None
    assert dcp is not None
    assert 98_304 <= tp.tokens < 262_144
    assert dcp.tokens == pytest.approx(8 * tp.tokens, rel=0.001)


def test_a_larger_batch_leaves_a_smaller_cache() -> None:
    small, large = (plan("kimi-k2-instruct", 2, "H200", max_num_batched_tokens=n).memory for n in (8192, 32768))
    assert small is not None
    assert large is not None
    assert large.tokens < small.tokens


def test_a_dense_model_divides_its_cache_over_tensor_parallel_ranks() -> None:
    shape = {
        "num_hidden_layers": 2,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 32,
        "vocab_size": 1024,
    }
    one, four = (
        plan("kimi-k2-thinking", 1, "H200", gpus, model_shape=shape, max_model_len=512).memory for gpus in (1, 4)
    )
    assert one is not None
    assert four is not None
    assert one.token_bytes == 2 * 2 * 8 * 32 * 2
    assert four.token_bytes == one.token_bytes / 4
