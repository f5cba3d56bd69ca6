"""What a recipe is made of: strategies and variants of the model, features, and what GPUs get besides."""

from __future__ import annotations

from pydantic import Field

from muster.errors import unknown
from muster.spec.safe_text import Commit, EnvName, Flag, Line, ModelId, ServedName, Version, Word
from muster.spec.shape import Shape
from muster.spec.sizes import Executor, LoadBalancing, Number, Sizes
from muster.spec.validation import Frozen

FlagValue = bool | int | float | str
Flags = dict[Flag, bool | int | float | Word]
Env = dict[EnvName, Word]


class Feature(Frozen):
    """A set of flags and variables that a user can turn on and off."""

    flags: Flags = {}
    env: Env = {}
    about: Line = ""


class Overrides(Frozen):
    """What GPUs of one generation or product get besides."""

    flags: Flags = {}
    env: Env = {}
    sizes: Sizes | None = None
    """In the place of the strategy's."""

    def over(self, other: Overrides) -> Overrides:
        """Return both, the other over this one."""
        return Overrides(
            flags={**self.flags, **other.flags}, env={**self.env, **other.env}, sizes=other.sizes or self.sizes
        )


class Profile(Frozen):
    """What a strategy is set up for: to serve people, or as the recipe's authors published it."""

    about: Line
    decode_context_parallel: bool | None = None
    """As in the strategy; None leaves that alone."""
    features: tuple[Line, ...] = ()
    """Besides the strategy's."""
    flags: Flags = {}
    """Over the strategy's."""


class Strategy(Frozen):
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
    gpus: tuple[Line, ...] = ()
    """Products that it is for; empty for all."""
    served_model_name: ServedName | None = None
    decode_context_parallel: bool = False
    """Decode context parallel size equal to TP unless the setting says otherwise."""
    features: tuple[Line, ...] = ()
    flags: Flags = {}
    env: Env = {}
    hardware: dict[Line, Overrides] | None = None
    """By GPU generation (`hopper`) and product, the product over the generation; each in the place of the recipe's."""
    profiles: dict[Line, Profile] = {}
    """Empty where one set of flags serves people and was published."""

    def of_variant(self, variant: Variant) -> Strategy:
        """Return the strategy with the variant's features, for the products that both are for."""
        both = tuple(gpu for gpu in self.gpus or variant.gpus if gpu in (variant.gpus or self.gpus))
        return self.model_copy(update={"features": (*self.features, *variant.features_on), "gpus": both})

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


class Variant(Frozen):
    """Another checkpoint of the model. What it says comes over the recipe's, and below a strategy's."""

    about: Line = ""
    model: ModelId | None = None
    revision: Commit | None = None
    min_vllm: Version | None = None
    context: int | None = Field(default=None, gt=0)
    shape: Shape | None = None
    vram_minimum_gb: float | None = Field(default=None, gt=0)
    fit: dict[Line, Number] = {}
    gpus: tuple[Line, ...] = ()
    """Products that it is for; empty for all."""
    flags: Flags = {}
    env: Env = {}
    hardware: dict[Line, Overrides] = {}
    """Over the recipe's, kind by kind."""
    features: dict[Line, Feature] = {}
    """In the place of the recipe's of the same name."""
    features_on: tuple[Line, ...] = ()
    """Besides those of every strategy."""
