"""What the model itself refuses is refused in the plan, before anything stops."""

from __future__ import annotations

import pytest

from muster.errors import Refusal
from muster.plan.layout import Layout
from muster.plan.model_limits import check
from muster.spec.shape import Shape
from tests.sample_plans import plan

# Qwen3-235B-A22B-FP8 and a dense model, from their config.json.
QWEN = Shape(
    num_hidden_layers=94, hidden_size=4096, intermediate_size=12288, moe_intermediate_size=1536, n_routed_experts=128,
    num_attention_heads=64, num_key_value_heads=4, head_dim=128, vocab_size=151936, weight_block=128,
)  # fmt: skip
DENSE = Shape(
    num_hidden_layers=2, hidden_size=256, intermediate_size=512, num_attention_heads=8, num_key_value_heads=8,
    head_dim=32, vocab_size=1024,
)  # fmt: skip


def tp(size: int) -> Layout:
    return Layout("tp", size, 1, 1, 1, 1, False)


def test_a_context_beyond_the_models_own_is_refused() -> None:
    with pytest.raises(Refusal, match=r"(?s)max_model_len 262,144 is beyond the model's own 131,072 tokens"):
        plan("kimi-k2-instruct", 2, "H200", max_model_len=262144)
    with pytest.raises(Refusal, match="beyond the model's own"):
        plan("kimi-k2-instruct", 2, "H200", extra_args=["--max_model_len=262144"])


def test_unless_vllm_is_told_to_take_it_or_another_model_is_served() -> None:
    longer = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    plan("kimi-k2-instruct", 2, "H200", max_model_len=262144, extra_env=longer, allow_oversubscription=True)
    plan("kimi-k2-instruct", 2, "H200", model="/srv/longer", max_model_len=262144, allow_oversubscription=True)


def test_experts_are_not_spread_where_there_are_none() -> None:
    layout = Layout("dp-ep", 1, 1, 2, 1, 1, True)
    with pytest.raises(Refusal, match=r"(?s)the model has none.*expert_parallel to False"):
        check(DENSE, layout, None, {}, None)


def test_blocks_that_tensor_parallel_would_cut_are_refused_with_a_size_that_fits() -> None:
    with pytest.raises(Refusal, match=r"(?s)moe_intermediate_size 1536 over TP8 is 192.*blocks of 128.*use TP4"):
        check(QWEN, tp(8), None, {}, None)
    check(QWEN, tp(4), None, {}, None)
    check(QWEN, Layout("dp-ep", 1, 1, 8, 1, 8, True), None, {}, None)


def test_heads_that_tensor_parallel_does_not_divide_are_refused() -> None:
    with pytest.raises(Refusal, match="64 attention heads over TP6"):
        check(QWEN, tp(6), None, {}, None)
    narrow = DENSE.model_copy(update={"num_attention_heads": 24, "num_key_value_heads": 3})
    with pytest.raises(Refusal, match=r"(?s)3 KV heads over TP4.*on as many GPUs"):
        check(narrow, tp(4), None, {}, None)
    check(narrow, tp(6), None, {}, None)
    check(DENSE.model_copy(update={"num_key_value_heads": 1}), tp(8), None, {}, None)


def test_experts_and_slices_of_experts_are_not_cut_smaller_than_they_are() -> None:
    with pytest.raises(Refusal, match="256 ranks for 128 experts"):
        check(QWEN, Layout("spread", 1, 1, 256, 1, 8, True), None, {}, None)
    with pytest.raises(Refusal, match="1536 over 16 ranks without expert parallel is 96"):
        check(QWEN, Layout("replicas", 4, 1, 4, 1, 2, False), None, {}, None)


def test_a_cache_is_divided_over_copies_of_a_kv_head_alone() -> None:
    check(QWEN, Layout("dcp", 8, 1, 1, 2, 1, True), None, {}, None)
    for layout in (Layout("dcp", 8, 1, 1, 4, 1, True), Layout("dcp", 4, 1, 1, 2, 1, True)):
        with pytest.raises(Refusal, match=r"(?s)decode_context_parallel_size.*copies of a KV head"):
            check(QWEN, layout, None, {}, None)
