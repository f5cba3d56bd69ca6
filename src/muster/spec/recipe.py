"""Recipes: one YAML per model, read into frozen, validated types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from muster import resources
from muster.errors import Refusal, unknown
from muster.spec.validation import refusal_of

STRATEGIES = ("tp", "tp-dcp", "tp-pp", "dp-ep")

FlagValue = bool | int | float | str
Flags = dict[str, FlagValue]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Shape(_Frozen):
    """What the model's config.json says of its size; `plan.gpu_memory` turns it into bytes.

    Dense models leave the expert counts at 0; models without MLA leave `kv_lora_rank` at 0 and give
    `num_key_value_heads` and `head_dim`.
    """

    num_hidden_layers: int = Field(gt=0)
    first_k_dense_replace: int = 0
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    moe_intermediate_size: int = 0
    n_routed_experts: int = 0
    n_shared_experts: int = 0
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = 0
    head_dim: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    vocab_size: int = Field(gt=0)
    expert_bits: float = 16
    """Bits a parameter of a routed expert takes, scales included (FP8 with 128x128 block scales: 8.002)."""
    linear_bits: float = 16
    """Bits a parameter of every other quantised linear layer takes."""
    other_bits: float = 16
    """Bits a parameter of embeddings, output head and router takes."""


class Feature(_Frozen):
    """A set of flags a user can turn off."""

    flags: Flags
    about: str = ""


class Strategy(_Frozen):
    """How the model is spread, and the seed's flags for it; sizes come from the topology."""

    about: str
    hosts: int | None = None
    """Exact number of hosts, or None for any number the arithmetic allows."""
    min_hosts: int = 1
    served_model_name: str | None = None
    decode_context_parallel: bool = False
    """Decode context parallel size equal to TP unless the setting says otherwise."""
    features: tuple[str, ...] = ()
    flags: Flags = {}


class Published(_Frozen):
    """A figure the recipe's authors published, kept with its hardware."""

    metric: str
    hardware: str
    values: dict[str, float]
    unit: str = ""


class Recipe(_Frozen):
    """One model: its shape, the strategies it is served with, and the figures published for it."""

    name: str
    title: str
    model: str
    revision: str | None = None
    min_vllm: str
    context: int = Field(gt=0)
    """Longest context the model takes, in tokens."""
    shape: Shape
    flags: Flags = {}
    features: dict[str, Feature] = {}
    strategies: dict[str, Strategy]
    defaults: dict[str, str]
    """GPU profile -> default strategy; `any` for the rest."""
    bench: dict[str, dict[str, Any]] = {}
    published: tuple[Published, ...] = ()

    @field_validator("strategies")
    @classmethod
    def _known_strategies(cls, value: dict[str, Strategy]) -> dict[str, Strategy]:
        for name in value:
            if name not in STRATEGIES:
                raise unknown("strategy", name, STRATEGIES)
        return value


# libyaml reads a recipe in 2 ms instead of 60; PyYAML's wheels carry it, some distributions' packages do not.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def names(directory: Path | None = None) -> list[str]:
    """Return the names of the recipes that can be asked for, sorted."""
    return sorted(path.stem for path in (directory or resources.directory("recipes")).glob("*.yaml"))


def load(name: str, directory: Path | None = None) -> Recipe:
    """Read a recipe by name, or from a path that ends in `.yaml`.

    Raises:
        Refusal: no such recipe, broken YAML, an unknown key (the nearest is suggested) or a bad value.
    """
    directory = directory or resources.directory("recipes")
    path = Path(name) if name.endswith((".yaml", ".yml")) else directory / f"{name.replace('_', '-')}.yaml"
    if not path.is_file():
        raise unknown("recipe", name, names(directory))
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except yaml.YAMLError as error:
        raise Refusal(f"{path}: not YAML: {error}", fix="mend the file") from None
    return parse(raw, where=str(path))


def parse(raw: object, *, where: str) -> Recipe:
    """Validate what a recipe file holds.

    Args:
        raw: the parsed YAML.
        where: file name for messages.

    Raises:
        Refusal: as `load`.
    """
    if not isinstance(raw, Mapping):
        raise Refusal(f"{where}: holds {type(raw).__name__}", needed="a mapping of recipe keys")
    try:
        recipe = Recipe.model_validate(dict(raw))
    except ValidationError as error:
        raise refusal_of(error, Recipe, where=where, what="recipe key") from None
    for strategy_name, strategy in recipe.strategies.items():
        for feature in strategy.features:
            if feature not in recipe.features:
                raise unknown("feature", feature, recipe.features, where=f"{where}: {strategy_name}")
    for profile, strategy_name in recipe.defaults.items():
        if strategy_name not in recipe.strategies:
            raise unknown("strategy", strategy_name, recipe.strategies, where=f"{where}: defaults: {profile}")
    return recipe
