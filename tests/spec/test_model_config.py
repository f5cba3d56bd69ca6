"""A model's own config.json -> cache and weights, against the engine's own cache specification and published sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.plan import cache_size
from muster.plan.gpu_memory import per_gpu, weight_bytes
from muster.plan.layout import Layout
from muster.plan.make import build_plan
from muster.spec import pins, recipe
from muster.spec.hardware import gpu
from muster.spec.listing import Entry, Listing
from muster.spec.model_config import NotUnderstood, shape_of
from muster.spec.recipe import Recipe
from muster.spec.settings import Settings
from tests.sample_plans import hosts

CONFIGS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "model_configs.json").read_text())
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
ONE = Layout("tp", 1, 1, 1, 1, 1, False)


def cache(name: str, *, tp: int = 1, element: int = 2) -> cache_size.CacheSize:
    layout = Layout("tp", tp, 1, 1, 1, 1, False)
    config = CONFIGS[name]
    length = config["max_position_embeddings"]
    return cache_size.of(shape_of(config), layout, element=element, batched_tokens=8192, max_model_len=length)


# What vLLM 0.32.0's own cache specification has of the same files: `benchmarks/cache_bytes.py` asked it.
SPECIFIED: dict[str, Any] = json.loads((RESULTS / "2026-11-27-cache-bytes.json").read_text())


def test_every_kind_of_cache_was_specified() -> None:
    asked = {case.split()[0] for case in SPECIFIED["models"]}
    assert asked == set(CONFIGS)
    kinds = {layer["kind"] for answer in SPECIFIED["models"].values() for layer in answer["layers"]}
    assert kinds == {
        *("FullAttentionSpec", "MLAAttentionSpec", "SlidingWindowSpec", "ChunkedLocalAttentionSpec", "MambaSpec")
    }


@pytest.mark.parametrize("case", SPECIFIED["models"])
def test_cache_is_what_the_engine_says(case: str) -> None:
    name, kind = case.split()
    size = cache_size.of(
        shape_of(CONFIGS[name]),
        ONE,
        element=cache_size.element_bytes({"kv-cache-dtype": kind}),
        batched_tokens=SPECIFIED["batched"],
        max_model_len=SPECIFIED["context"],
    )
    layers = SPECIFIED["models"][case]["layers"]
    assert size.token_bytes == sum(layer["count"] * layer["token"] for layer in layers)
    assert size.request_bytes == pytest.approx(sum(layer["count"] * layer["request"] for layer in layers), rel=0.01)


@pytest.mark.parametrize(
    ("said", "own"),
    [
        ({}, 61),
        ({"index_topk_freq": 4}, 16),
        ({"index_topk_freq": 4, "index_skip_topk_offset": 3}, 17),
        ({"index_topk_pattern": "FSSS" * 15 + "F"}, 16),
        ({"index_topk_pattern": ["F", "S"]}, 60),
    ],
)
def test_layers_that_share_an_indexers_choice_keep_no_keys_of_it(said: dict[str, Any], own: int) -> None:
    shape = shape_of({**CONFIGS["deepseek-v3.2"], **said})
    assert shape.index_layers == own
    size = cache_size.of(shape, ONE, element=2, batched_tokens=8192, max_model_len=163840)
    assert size.token_bytes == 61 * 1152 + own * 132


def test_sparse_mla_takes_788_bytes_a_token_and_layer_in_fp8() -> None:
    assert cache("deepseek-v3.2", element=1).token_bytes == 61 * 788
    assert cache("deepseek-v3", element=1).token_bytes == 61 * 576


def test_tensor_parallel_divides_kv_heads_until_there_is_one_and_never_the_latent() -> None:
    assert cache("qwen3-235b", tp=4).token_bytes == cache("qwen3-235b", tp=8).token_bytes == 94 * 512
    assert cache("deepseek-v3", tp=8).token_bytes == cache("deepseek-v3").token_bytes


# Parameters in billions as the models' authors give them; embeddings are counted twice where the output head is tied,
# MTP layers and small projections are not counted.
PARAMETERS = [
    ("llama-3.3-70b", 70.6),
    ("qwen3-235b", 235),
    ("mixtral-8x7b", 46.7),
    ("mistral-7b-v0.1", 7.24),
    ("gpt-oss-120b", 116.8),
    ("deepseek-v3", 671),
    ("glm-4.6", 353),
    ("llama-4-scout", 108),
    ("qwen3-next-80b", 80),
    ("minimax-m2", 229),
]


@pytest.mark.parametrize(("name", "billions"), PARAMETERS)
def test_sizes_add_up_to_the_models_parameters(name: str, billions: float) -> None:
    assert weight_bytes(shape_of(CONFIGS[name])) / 2e9 == pytest.approx(billions, rel=0.02)


def test_the_bytes_on_disk_decide_where_they_are_known() -> None:
    quantised = CONFIGS["qwen3-235b"] | {"quantization_config": {"quant_method": "awq"}}
    with pytest.raises(NotUnderstood, match="awq"):
        shape_of(quantised)
    shape = shape_of(quantised, weight_bytes=124_000_000_000)
    assert weight_bytes(shape) == 124_000_000_000
    memory = per_gpu(shape, ONE, gpu("H200"), utilization=0.9, batched_tokens=8192, max_model_len=4096, cache_bytes=2)
    weights = sum(part.bytes for part in memory.parts if part.name != "allowance")
    assert weights == pytest.approx(124e9, rel=1e-6)


def test_scout_keeps_its_context_of_ten_million_tokens() -> None:
    """Its chunked layers keep 8,192 tokens: counted in full, it would be cut to a third."""
    layout = Layout("tp", 8, 1, 1, 1, 1, False)
    memory = per_gpu(
        shape_of(CONFIGS["llama-4-scout"]),
        layout,
        gpu("H200"),
        utilization=0.92,
        batched_tokens=8192,
        max_model_len=10_485_760,
        cache_bytes=2,
    )
    assert memory.fits


def test_fp8_blocks_are_those_of_the_file() -> None:
    fp8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    shape = shape_of(CONFIGS["deepseek-v3"] | fp8)
    assert shape.weight_block == 128
    assert weight_bytes(shape) == pytest.approx(671e9, rel=0.01)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mamba9"}, "model_type mamba9 is not known"),
        ({"layer_types": ["full_attention"]}, "names 1 layers of 94"),
        ({"layer_types": ["kda"] * 94}, "kind of layer that is not known"),
        ({"num_attention_heads": "64"}, "num_attention_heads is '64'"),
        ({"num_hidden_layers": 1 << 40}, "num_hidden_layers is"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"sliding_window": 4096, "use_sliding_window": True}, "sliding_window without layer_types"),
    ],
)
def test_what_is_not_known_is_said_and_nothing_guessed(change: dict[str, Any], says: str) -> None:
    with pytest.raises(NotUnderstood, match=says):
        shape_of(CONFIGS["qwen3-235b"] | change)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inside: st.lists(inside, max_size=3)
)


@given(st.sampled_from(sorted(CONFIGS)), st.dictionaries(st.sampled_from(sorted({*CONFIGS["qwen3-next-80b"]})), JSON))
def test_whatever_a_file_holds_a_shape_comes_out_or_words(name: str, change: dict[str, Any]) -> None:
    try:
        shape = shape_of(CONFIGS[name] | change)
    except NotUnderstood:
        return
    cache_size.of(shape, ONE, element=2, batched_tokens=8192, max_model_len=4096)


def shapeless() -> Recipe:
    raw = {
        "name": "any",
        "title": "Any",
        "model": "org/any",
        "min_vllm": "0.32.0",
        "context": 131072,
        "strategies": {"tp": {"about": "x"}},
        "defaults": {"any": "tp"},
    }
    return recipe.parse(raw, where="any.yaml")


def pinned(config: dict[str, Any] | None, **more: int) -> Recipe:
    sizes = {"model-00001-of-00002.safetensors": 70 << 30, "model-00002-of-00002.safetensors": 61 << 30, **more}
    files = tuple(Entry(path, size, "0" * 64) for path, size in sizes.items())
    return pins.pinned(shapeless(), Listing("org/any", "a" * 40, "hub", files, config))


def test_a_recipe_without_a_shape_takes_the_pins() -> None:
    plan = build_plan(pinned(CONFIGS["llama-3.3-70b"]), hosts(1, "H200"), Settings())
    assert plan.memory is not None
    assert plan.weight_bytes == 131 << 30
    assert plan.memory.token_bytes == 80 * 512


def test_weights_that_a_repository_holds_twice_count_once() -> None:
    recipe_ = pinned(CONFIGS["llama-3.3-70b"], **{"consolidated.safetensors": 131 << 30, "draft/model.safetensors": 9})
    assert recipe_.shape is not None
    assert recipe_.shape.weight_bytes == 131 << 30


@pytest.mark.parametrize("config", [None, {"model_type": "mamba9"}])
def test_ignorance_neither_refuses_nor_cuts_a_context(config: dict[str, Any] | None) -> None:
    plan = build_plan(pinned(config), hosts(1, "H800"), Settings())
    assert plan.memory is None
    assert "--max-model-len" not in plan.head.processes[-1].argv
    assert any("the cache is not known" in warning for warning in plan.warnings)
    assert "not known before the engine measures it" in plan.serves
