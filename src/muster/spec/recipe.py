"""Recipes: one YAML per model, read into frozen, validated types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, PrivateAttr, ValidationError, field_validator

from muster import resources
from muster.errors import Refusal, unknown
from muster.guard.endpoint_kinds import COMPLETIONS, KINDS
from muster.spec import own_files, yaml_text
from muster.spec.git_source import Repository
from muster.spec.hardware import GENERATIONS, GPUS, Gpu
from muster.spec.own_files import FileName, OwnFile
from muster.spec.safe_text import (
    Commit,
    Line,
    ModelId,
    Name,
    PathSegment,
    Requirement,
    UnitText,
    Version,
)
from muster.spec.shape import Shape
from muster.spec.sizes import OLD, Number
from muster.spec.strategy import Env, Feature, Flags, Overrides, Strategy, Variant
from muster.spec.validation import Frozen, refusal_of

DEFAULT_PROFILE = "serving"


class Published(Frozen):
    """A figure the recipe's authors published, kept with its hardware."""

    metric: Line
    hardware: Line
    values: dict[Line, float]
    unit: Line = ""


class Source(Frozen):
    """Where a recipe was imported from."""

    repository: Repository | None = None
    """That the catalogue came from; None where a directory held it."""
    commit: Commit | None = None
    path: Line
    """Of the file in the catalogue."""
    sha256: Line
    variant: Line


class Recipe(Frozen):
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
    packages: tuple[Requirement, ...] = Field(default=(), max_length=16)
    """That the engine's environment gets besides, from its index, resolved together with the engine."""
    vram_minimum_gb: float | None = Field(default=None, gt=0)
    """What the recipe's authors say that the weights need, as GPUs are sold: 80, 141."""
    fit: dict[Line, Number] = {}
    """GPUs of an engine where a strategy says `tp: fit`, by product (`any` for the rest); left out, one where
    `vram_minimum_gb` is no more than a GPU has, else all of a host."""
    flags: Flags = {}
    env: Env = {}
    hardware: dict[Line, Overrides] = {}
    """By GPU generation and product; a strategy's block of the same kind stands in the place of one here."""
    features: dict[Line, Feature] = {}
    variants: dict[PathSegment, Variant] = {}
    variant: PathSegment | None = None
    """The one that is taken where the setting names none."""
    strategies: dict[Line, Strategy]
    defaults: dict[Line, Line]
    """GPU profile -> default strategy; `any` for the rest."""
    bench: dict[Line, dict[Line, bool | int | float | Line | list[int | float]]] = {}
    published: tuple[Published, ...] = ()
    _of: str | None = PrivateAttr(default=None)

    @property
    def pin(self) -> str:
        """Name of its pin: that of the recipe, and of the variant where it is not the recipe's own."""
        return self.name if self._of in (None, self.variant) else f"{self.name}-{self._of}"

    @property
    def pin_command(self) -> str:
        """The command that pins it."""
        return f"muster pin {self.name}" if self.pin == self.name else f"muster pin {self.name} --variant {self._of}"

    def of_variant(self, name: str | None) -> Recipe:
        """Return the recipe of one of its variants; of one it stays as it is.

        Args:
            name: the variant's; None for the recipe's own.

        Raises:
            Refusal: no such variant.
        """
        name = name or self._of or self.variant
        if name is None or self._of == name:
            return self
        if name not in self.variants:
            raise unknown("variant", name, self.variants, where=f"recipe {self.name}")
        variant = self.variants[name]
        given = ("model", "revision", "min_vllm", "context", "shape", "vram_minimum_gb")
        replaced = {key: getattr(variant, key) for key in given if getattr(variant, key) is not None}
        if variant.model is not None:  # other weights: neither the commit nor the bits are the recipe's
            replaced = {"revision": None, "shape": None, **replaced}
        kinds = self.hardware | {
            kind: self.hardware.get(kind, Overrides()).over(block) for kind, block in variant.hardware.items()
        }
        chosen = self.model_copy(
            update={
                **replaced,
                "fit": {**self.fit, **variant.fit} if "any" not in variant.fit else variant.fit,
                "flags": {**self.flags, **variant.flags},
                "env": {**self.env, **variant.env},
                "hardware": kinds,
                "features": {**self.features, **variant.features},
                "strategies": {key: strategy.of_variant(variant) for key, strategy in self.strategies.items()},
            }
        )
        chosen._of = name
        return chosen

    def on(self, gpu: Gpu) -> Recipe:
        """Return the recipe as it is on one GPU product: what its generation and the product itself need, merged."""
        strategies = {}
        for name, strategy in self.strategies.items():
            given = {**self.hardware, **(strategy.hardware or {})}
            for overrides in (given[kind] for kind in (gpu.generation, gpu.profile) if kind in given):
                strategy = strategy.model_copy(
                    update={
                        "flags": {**strategy.flags, **overrides.flags},
                        "env": {**strategy.env, **overrides.env},
                        "sizes": overrides.sizes or strategy.sizes,
                    }
                )
            if strategy.sizes.tp == "fit":
                sizes = strategy.sizes.model_copy(update={"tp": self._engine_gpus(gpu)})
                strategy = strategy.model_copy(update={"sizes": sizes})
            strategies[name] = strategy
        return self.model_copy(update={"strategies": strategies})

    def _engine_gpus(self, gpu: Gpu) -> int | str:
        said = self.fit.get(gpu.profile) or self.fit.get("any")
        return said or (1 if self.vram_minimum_gb and self.vram_minimum_gb <= gpu.gigabytes else "host")

    @field_validator("endpoint")
    @classmethod
    def _asked(cls, value: str) -> str:
        if value == "transcription":
            raise Refusal(
                "endpoint transcription: guards send JSON, and /v1/audio/transcriptions takes a file of sound",
                needed=f"one of {', '.join(KINDS)}",
                fix="leave endpoint out for a model that completes text as well, as Qwen3-ASR and Voxtral do",
            )
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
    _check_variants(recipe, where)
    blocks = [recipe.hardware, *(each.hardware for each in recipe.variants.values())]
    blocks += [each.hardware or {} for each in recipe.strategies.values()]
    kinds = [kind for block in blocks for kind in block]
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


def _check_variants(recipe: Recipe, where: str) -> None:
    """Refuse names in or of variants that the recipe does not have, and products that there are not."""
    if recipe.variant is not None and recipe.variant not in recipe.variants:
        raise unknown("variant", recipe.variant, recipe.variants, where=f"{where}: variant")
    if recipe.variants and recipe.variant is None:
        raise Refusal(f"{where}: has variants, and says not which one to take", fix="add `variant: NAME`")
    products = [*recipe.fit, *(gpu for each in recipe.strategies.values() for gpu in each.gpus)]
    for name, variant in recipe.variants.items():
        products += [*variant.fit, *variant.gpus]
        for feature in variant.features_on:
            if feature not in {**recipe.features, **variant.features}:
                raise unknown("feature", feature, recipe.features, where=f"{where}: {name}")
        for key, strategy in recipe.strategies.items():
            if variant.gpus and strategy.gpus and not set(variant.gpus) & set(strategy.gpus):
                raise Refusal(f"{where}: no product takes both variant {name} and strategy {key}")
    for product in products:
        if product not in {*GPUS, "any"}:
            raise unknown("GPU product", product, GPUS, where=where)
