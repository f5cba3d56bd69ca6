"""Variants of a recipe: what each says over the recipe, its pin, and what may not be."""

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
    "name": "many",
    "title": "Many",
    "model": "org/many",
    "revision": "a" * 40,
    "min_vllm": "0.20.0",
    "context": 8192,
    "vram_minimum_gb": 300,
    "flags": {"max-num-seqs": 1, "block-size": 16},
    "env": {"A_B": "1"},
    "hardware": {"hopper": {"flags": {"swap-blocks": 1}}},
    "features": {"mtp": {"flags": {"speculative-config": "{}"}}, "tools": {"flags": {"enable-auto-tool-choice": True}}},
    "variant": "default",
    "variants": {
        "default": {},
        "fp8": {
            "model": "org/many-FP8",
            "min_vllm": "0.30.0",
            "vram_minimum_gb": 75,
            "flags": {"max-num-seqs": 2},
            "env": {"A_B": "2"},
            "hardware": {"hopper": {"flags": {"async-scheduling": True}}},
            "features": {"mtp": {"flags": {"speculative-config": '{"method":"mtp"}'}}},
            "features_on": ["mtp"],
            "gpus": ["H100", "H200"],
        },
        "int4": {"fit": {"H200": 2, "any": 4}},
    },
    "strategies": {"one": {"about": "x", "hosts": 1, "sizes": {"tp": "fit"}, "features": ["tools"]}},
    "defaults": {"any": "one"},
}


def planned(wanted: str | None, gpu: str = "H200", **change: Any) -> Plan:
    made = recipe.parse({**RAW, **change}, where="many")
    return build_plan(made, hosts(1, gpu), Settings(variant=wanted))


def test_a_variant_says_its_weights_and_its_words_over_the_recipes() -> None:
    flags = engine_flags(planned("fp8"))
    expected = {"max-num-seqs": "2", "block-size": "16", "swap-blocks": "1", "async-scheduling": ""}
    assert {name: flags.get(name) for name in expected} == expected
    assert (flags["speculative-config"], flags["enable-auto-tool-choice"]) == ('{"method":"mtp"}', "")
    plan = planned("fp8")
    assert (plan.model, plan.head.processes[-1].env["A_B"]) == ("org/many-FP8", "2")
    assert "revision" not in flags


def test_without_the_setting_the_recipes_own_variant_is_taken() -> None:
    plan = planned(None)
    assert (plan.model, engine_flags(plan)["revision"]) == ("org/many", "a" * 40)
    assert "speculative-config" not in engine_flags(plan)
    assert planned(None, variant="fp8").model == "org/many-FP8"
    assert planned(None).digest == planned("default").digest


@pytest.mark.parametrize(
    ("variant", "gpu", "label"),
    [("default", "H200", "TP8"), ("fp8", "H100", "TP1"), ("int4", "H200", "TP2"), ("int4", "H100", "TP4")],
)
def test_an_engine_takes_as_many_gpus_as_its_weights_need(variant: str, gpu: str, label: str) -> None:
    assert planned(variant, gpu).label == label


def test_each_variant_has_a_pin_of_its_own() -> None:
    made = recipe.parse(RAW, where="many")
    assert [made.of_variant(name).pin for name in (None, "default", "fp8")] == ["many", "many", "many-fp8"]
    assert made.of_variant("fp8").pin_command == "muster pin many --variant fp8"
    assert made.of_variant("fp8").of_variant(None).pin == "many-fp8"


@pytest.mark.parametrize(
    ("change", "asked", "gpu", "says"),
    [
        ({}, "fp9", "H200", "did you mean 'fp8'"),
        ({}, "fp8", "H20", "no strategy of recipe many"),
        ({"variant": "fp9"}, None, "H200", "did you mean 'fp8'"),
        ({"variant": None}, None, "H200", "says not which"),
        ({"variants": {"default": {"flags": {"port": 1}}}}, None, "H200", "holds --port"),
        ({"variants": {"default": {"features_on": ["tool"]}}}, None, "H200", "did you mean 'tools'"),
        ({"variants": {"default": {"gpus": ["H2000"]}}}, None, "H200", "did you mean 'H200'"),
        ({"variants": {"default": {"hardware": {"hooper": {}}}}}, None, "H200", "did you mean 'hopper'"),
        ({"variants": {"../x": {}}, "variant": "../x"}, None, "H200", "variants"),
    ],
)
def test_what_a_variant_may_not_say_is_refused(change: dict[str, Any], asked: str | None, gpu: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        planned(asked, gpu, **change)
