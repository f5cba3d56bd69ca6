"""Recipes that muster ships by import: what the importer makes of the catalogue, with memory that agrees with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.commands.import_recipe import as_text
from muster.plan.gpu_memory import weight_bytes
from muster.plan.make import build_plan
from muster.spec import recipe
from muster.spec.model_config import shape_of
from muster.spec.settings import Settings
from muster.spec.vllm_catalogue import Importer
from tests.catalogue import facts
from tests.sample_plans import hosts

RECIPES = Path(__file__).parents[2] / "recipes"
CONFIGS: dict[str, dict[str, Any]] = json.loads((RECIPES.parent / "tests/spec/model_configs.json").read_text())
IMPORTED = [name for name in recipe.names() if recipe.load(name).source]
FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
MXFP4 = {"quantization_config": {"quant_method": "mxfp4"}}


def test_models_of_every_family_are_there() -> None:
    assert {name.split("-")[0] for name in IMPORTED} == {"kimi", "deepseek", "glm", "qwen3", "minimax", "gpt", "llama"}


@pytest.mark.parametrize("name", IMPORTED)
def test_a_shipped_recipe_is_what_the_importer_makes(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text()
    raw = yaml.safe_load(text)
    assert text.splitlines()[:2] == as_text(raw).splitlines()[:2]
    model = raw["source"]["path"].removeprefix("models/").removesuffix(".yaml")
    made = Importer(dict(facts.models())[model], "facts").recipe(raw["source"], raw["variant"])
    if name == "gpt-oss-120b":
        del made["variants"]["amd_fp8"]  # for another vendor's GPUs, which its file does not say
    assert raw == made | {"title": raw["title"], "source": raw["source"]}
    assert len(raw["source"]["sha256"]) == 64
    assert raw["source"]["repository"] == "https://github.com/vllm-project/recipes"
    assert raw["source"]["commit"].startswith("8959cf64")
    assert not any("about" in feature for feature in raw.get("features", {}).values())


@pytest.mark.parametrize(
    ("name", "variant", "config", "quantised"),
    [
        ("llama-3-3-70b-instruct", "default", "llama-3.3-70b", {}),
        ("llama-3-3-70b-instruct", "fp8", "llama-3.3-70b", FP8),
        ("qwen3-235b-a22b-instruct-2507", "default", "qwen3-235b", {}),
        ("qwen3-235b-a22b-instruct-2507", "fp8", "qwen3-235b", FP8),
        ("deepseek-v3-2", "default", "deepseek-v3.2", FP8),
        ("minimax-m2-5", "default", "minimax-m2", FP8),
        ("gpt-oss-120b", "default", "gpt-oss-120b", MXFP4),
    ],
)
def test_weights_are_within_what_the_catalogue_asks_for(
    name: str, variant: str, config: str, quantised: dict[str, Any]
) -> None:
    asked = recipe.load(name).of_variant(variant).vram_minimum_gb
    weights = weight_bytes(shape_of(CONFIGS[config] | quantised)) / 1e9
    assert asked is not None
    assert weights <= asked <= 1.6 * weights


def test_without_a_pin_the_plan_holds_the_gpus_against_what_the_catalogue_asks_for() -> None:
    made = recipe.load("glm-5-2")
    settings = Settings(strategy="single_node_tp", allow_unpinned_code=True)
    assert "the recipe asks for 893 GB; these GPUs have 640" in " ".join(
        build_plan(made, hosts(1, "H100"), settings).warnings
    )
    assert "asks for" not in " ".join(build_plan(made, hosts(1, "H200"), settings).warnings)
