"""Recipes: one YAML per model, read into frozen, validated types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from muster import resources
from muster.errors import Refusal, unknown
from muster.guard.endpoint_kinds import COMPLETIONS, KINDS
from muster.spec import own_files, yaml_text
from muster.spec.hardware import GENERATIONS, GPUS, Gpu
from muster.spec.own_files import FileName, OwnFile
from muster.spec.safe_text import Commit, EnvName, Flag, Line, ModelId, Name, ServedName, UnitText, Version, Word
from muster.spec.sizes import OLD, Executor, LoadBalancing, Sizes
from muster.spec.validation import refusal_of

DEFAULT_PROFILE = "serving"

FlagValue = bool | int | float | str
Flags = dict[Flag, bool | int | float | Word]
Env = dict[EnvName, Word]


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
    index_head_dim: int = 0
    """Of sparse MLA: size of the key that its indexer keeps of every token."""
    window_layers: int = Field(default=0, ge=0)
    """Layers that keep a window of tokens (sliding or chunked attention), `window` of them."""
    window: int = Field(default=0, ge=0)
    state_layers: int = Field(default=0, ge=0)
    """Layers that keep a state of each request (linear attention), of `state_bytes` over all TP ranks."""
    state_bytes: int = Field(default=0, ge=0)
    vocab_size: int = Field(gt=0)
    expert_bits: float = 16
    """Bits a parameter of a routed expert takes, scales included (FP8 with 128x128 block scales: 8.002)."""
    linear_bits: float = 16
    """Bits a parameter of every other quantised linear layer takes."""
    other_bits: float = 16
    """Bits a parameter of embeddings, output head and router takes."""
    weight_block: int = Field(default=0, ge=0)
    """Side of the square blocks that quantised weights have one scale for; 0 where there are none."""
    weight_bytes: int = Field(default=0, ge=0)
    """Of all weights on disk, which the sizes are scaled to; 0 where only the sizes are known."""

    @property
    def kv_heads(self) -> int:
        """Number of KV heads without MLA: as many as attention heads where the model does not say."""
        return self.num_key_value_heads or self.num_attention_heads


class Feature(_Frozen):
    """A set of flags and variables that a user can turn on and off."""

    flags: Flags = {}
    env: Env = {}
    about: Line = ""


class Overrides(_Frozen):
    """What GPUs of one generation or product get besides."""

    flags: Flags = {}
    env: Env = {}
    sizes: Sizes | None = None
    """In the place of the strategy's."""


class Profile(_Frozen):
    """What a strategy is set up for: to serve people, or as the recipe's authors published it."""

    about: Line
    decode_context_parallel: bool | None = None
    """As in the strategy; None leaves that alone."""
    features: tuple[Line, ...] = ()
    """Besides the strategy's."""
    flags: Flags = {}
    """Over the strategy's."""


class Strategy(_Frozen):
    """How the model is spread, and the flags for it; the hosts turn sizes into numbers."""

    about: Line
    sizes: Sizes = Sizes()
    """May be left out by the names that have always had sizes of their own."""
    load_balancing: LoadBalancing = "internal"
    executor: Executor = "mp"
    """Where an engine spans hosts and the setting says nothing."""
    hosts: int | None = None
    """Exact number of hosts, or None for any number the arithmetic allows."""
    min_hosts: int = 1
    served_model_name: ServedName | None = None
    decode_context_parallel: bool = False
    """Decode context parallel size equal to TP unless the setting says otherwise."""
    features: tuple[Line, ...] = ()
    flags: Flags = {}
    env: Env = {}
    hardware: dict[Line, Overrides] | None = None
    """By GPU generation (`hopper`) and product, the product over the generation; None takes the recipe's."""
    profiles: dict[Line, Profile] = {}
    """Empty where one set of flags serves people and was published."""

    def in_profile(self, name: str) -> Strategy:
        """Return the strategy with the flags and features of one of its profiles.

        Raises:
            Refusal: the strategy has profiles, and none of that name.
        """
        if not self.profiles:
            return self
        if name not in self.profiles:
            raise unknown("profile", name, self.profiles)
        profile = self.profiles[name]
        dcp = profile.decode_context_parallel
        return self.model_copy(
            update={
                "sizes": self.sizes.model_copy(update={"dcp": 1}) if dcp is False else self.sizes,
                "flags": {**self.flags, **profile.flags},
                "features": (*self.features, *profile.features),
                "decode_context_parallel": self.decode_context_parallel if dcp is None else dcp,
            }
        )


class Published(_Frozen):
    """A figure the recipe's authors published, kept with its hardware."""

    metric: Line
    hardware: Line
    values: dict[Line, float]
    unit: Line = ""


class Source(_Frozen):
    """Where a recipe was imported from."""

    path: Line
    """Of the file in the catalogue."""
    sha256: Line
    variant: Line


class Recipe(_Frozen):
    """One model: its shape, the strategies it is served with, and the figures published for it."""

    name: Name
    title: UnitText
    model: ModelId
    revision: Commit | None = None
    min_vllm: Version
    context: int = Field(gt=0)
    """Longest context the model takes, in tokens."""
    shape: Shape | None = None
    """None takes it from the model's own config.json in the pin, where that is understood."""
    source: Source | None = None
    endpoint: Line = COMPLETIONS
    """What the model answers, by its name in the guard's `endpoint_kinds`."""
    files: dict[FileName, OwnFile] = {}
    """That flags name: chat templates and parser plugins."""
    flags: Flags = {}
    env: Env = {}
    hardware: dict[Line, Overrides] = {}
    """For the strategies that have none of their own."""
    features: dict[Line, Feature] = {}
    strategies: dict[Line, Strategy]
    defaults: dict[Line, Line]
    """GPU profile -> default strategy; `any` for the rest."""
    bench: dict[Line, dict[Line, bool | int | float | Line | list[int | float]]] = {}
    published: tuple[Published, ...] = ()

    def on(self, gpu: Gpu) -> Recipe:
        """Return the recipe as it is on one GPU product: what its generation and the product itself need, merged."""
        strategies = {}
        for name, strategy in self.strategies.items():
            given = self.hardware if strategy.hardware is None else strategy.hardware
            for overrides in (given[kind] for kind in (gpu.generation, gpu.profile) if kind in given):
                strategy = strategy.model_copy(
                    update={
                        "flags": {**strategy.flags, **overrides.flags},
                        "env": {**strategy.env, **overrides.env},
                        "sizes": overrides.sizes or strategy.sizes,
                    }
                )
            strategies[name] = strategy
        return self.model_copy(update={"strategies": strategies})

    @field_validator("endpoint")
    @classmethod
    def _asked(cls, value: str) -> str:
        if value not in KINDS:
            raise unknown("endpoint", value, KINDS)
        return value

    @field_validator("strategies", mode="before")
    @classmethod
    def _sized(cls, value: object) -> object:
        """Fill in the sizes of the old names; any other name has to say its own."""
        if not isinstance(value, Mapping):
            return value
        filled = {}
        for name, strategy in value.items():
            if isinstance(strategy, Mapping) and "sizes" not in strategy:
                if name not in OLD:
                    raise unknown("strategy", str(name), OLD, where="a strategy without sizes")
                strategy = {"executor": "ray", **strategy, "sizes": OLD[name]}
            filled[name] = strategy
        return filled


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
    return parse(yaml_text.read(path, what="recipe"), where=str(path), directory=path.parent)


def parse(raw: object, *, where: str, directory: Path | None = None) -> Recipe:
    """Validate what a recipe file holds.

    Args:
        raw: the parsed YAML.
        where: file name for messages.
        directory: in which files that the recipe names are; None where it came from no file.

    Raises:
        Refusal: as `load`; a file that the recipe names is missing or another.
    """
    if not isinstance(raw, Mapping):
        raise Refusal(f"{where}: holds {type(raw).__name__}", needed="a mapping of recipe keys")
    try:
        recipe = Recipe.model_validate(dict(raw))
    except ValidationError as error:
        raise refusal_of(error, Recipe, where=where, what="recipe key") from None
    if recipe.files:
        recipe = recipe.model_copy(update={"files": own_files.read(recipe.files, directory, where=where)})
    for strategy_name, strategy in recipe.strategies.items():
        named = [*strategy.features, *(name for profile in strategy.profiles.values() for name in profile.features)]
        if strategy.profiles and DEFAULT_PROFILE not in strategy.profiles:
            raise Refusal(
                f"{where}: {strategy_name} has profiles {', '.join(strategy.profiles)}",
                needed=f"one called {DEFAULT_PROFILE}: it is taken where nobody says otherwise",
                fix="add it, or move its flags into the strategy",
            )
        for feature in named:
            if feature not in recipe.features:
                raise unknown("feature", feature, recipe.features, where=f"{where}: {strategy_name}")
    kinds = [*recipe.hardware, *(kind for each in recipe.strategies.values() for kind in each.hardware or ())]
    for kind in kinds:
        if kind not in {*GENERATIONS.values(), *GPUS}:
            raise unknown("GPU generation or product", kind, [*GENERATIONS.values(), *GPUS], where=f"{where}: hardware")
    if "any" not in recipe.defaults:
        raise Refusal(
            f"{where}: defaults names no strategy for 'any'",
            needed="one for GPUs that it does not name",
            fix="add 'any' to defaults",
        )
    for profile, strategy_name in recipe.defaults.items():
        if strategy_name not in recipe.strategies:
            raise unknown("strategy", strategy_name, recipe.strategies, where=f"{where}: defaults: {profile}")
    return recipe
