"""What a recipe's layers come to: variables, flags by GPU, features of any name, and the user's settings over all."""

from __future__ import annotations

from typing import Any

import pytest

from muster.errors import Refusal
from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.spec import recipe
from muster.spec.settings import Settings
from tests.sample_plans import engine_flags, hosts

RAW: dict[str, Any] = {
    "name": "layers",
    "title": "Layers",
    "model": "org/layers",
    "min_vllm": "0.32.0",
    "context": 8192,
    "flags": {"max-num-seqs": 1, "block-size": 16},
    "env": {"VLLM_USE_DEEP_GEMM": "0", "NCCL_DEBUG": "WARN"},
    "hardware": {
        "hopper": {"flags": {"max-num-seqs": 2, "swap-space": 4}, "env": {"NCCL_DEBUG": "INFO"}},
        "H100": {"flags": {"max-num-seqs": 3}, "sizes": {"tp": 4}},
    },
    "features": {
        "tool_calling": {"flags": {"enable-auto-tool-choice": True, "tool-call-parser": "hermes"}},
        "text_only": {"flags": {"language-model-only": True}, "env": {"VLLM_TEXT": "1"}},
    },
    "strategies": {
        "tp": {"about": "x", "hosts": 1, "sizes": {}, "features": ["tool_calling"]},
        "own": {"about": "x", "hosts": 1, "sizes": {}, "hardware": {"hopper": {"flags": {"max-num-seqs": 9}}}},
    },
    "defaults": {"any": "tp"},
}


def planned(gpu: str = "H200", change: dict[str, Any] | None = None, **settings: Any) -> Plan:
    return build_plan(recipe.parse({**RAW, **(change or {})}, where="layers"), hosts(1, gpu), Settings(**settings))


def env(plan: Plan) -> dict[str, str]:
    return dict(plan.head.processes[-1].env)


def test_the_product_wins_over_the_generation_and_both_over_the_recipe() -> None:
    assert [engine_flags(planned(gpu))["max-num-seqs"] for gpu in ("H200", "H100")] == ["2", "3"]
    assert engine_flags(planned("H100"))["block-size"] == "16"
    assert [planned(gpu).label for gpu in ("H200", "H100")] == ["TP8", "TP4"]


def test_a_strategys_own_block_replaces_the_recipes() -> None:
    plan = planned(strategy="own")
    assert engine_flags(plan)["max-num-seqs"] == "9"
    assert env(plan)["NCCL_DEBUG"] == "WARN"


def test_variables_reach_the_engine_and_the_users_win() -> None:
    assert {name: env(planned())[name] for name in RAW["env"]} == {"VLLM_USE_DEEP_GEMM": "0", "NCCL_DEBUG": "INFO"}
    assert env(planned(extra_env={"NCCL_DEBUG": "TRACE"}))["NCCL_DEBUG"] == "TRACE"


def test_features_of_any_name_are_turned_on_and_off() -> None:
    assert "language-model-only" not in engine_flags(planned())
    on = planned(features={"text_only": True, "tool_calling": False})
    assert "language-model-only" in engine_flags(on)
    assert env(on)["VLLM_TEXT"] == "1"
    assert "tool-call-parser" not in engine_flags(on)
    assert "tool-call-parser" in engine_flags(planned(features={"tool_calling": False}, tool_calling=True))


def test_a_strategys_feature_is_on_whatever_it_is_called() -> None:
    strategies = {"tp": {**RAW["strategies"]["tp"], "features": ["text_only"]}}
    assert "language-model-only" in engine_flags(planned(change={"strategies": strategies}))


@pytest.mark.parametrize(
    ("change", "settings", "says"),
    [
        ({"env": {"CUDA_VISIBLE_DEVICES": "0"}}, {}, "recipe layers sets CUDA_VISIBLE_DEVICES"),
        ({"env": {"MY_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz"}}, {}, "MY_TOKEN"),
        ({"env": {"A": "b\nc"}}, {}, "env"),
        ({"hardware": {"hooper": {}}}, {}, "did you mean 'hopper'"),
        ({"hardware": {"hopper": {"flags": {"port": 1}}}}, {}, "holds --port"),
        ({}, {"features": {"text_onli": True}}, "did you mean 'text_only'"),
    ],
)
def test_what_a_recipe_may_not_say_is_refused(change: dict[str, Any], settings: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        planned(change=change, **settings)
