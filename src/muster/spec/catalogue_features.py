"""Features of a model in vLLM's recipe catalogue: their words, which are on, and what a variant makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from muster.errors import Refusal, shown
from muster.spec.catalogue_text import GENERATION, Raw, general, kept, mapping, text, texts
from muster.spec.catalogue_words import Words


class Features:
    """The features of one model; those that cannot be carried over are left out, and said.

    Args:
        raw: the model's YAML.
        words: reads words of a command line.
        env: reads variables.
    """

    def __init__(self, raw: Raw, words: Callable[[Sequence[str]], Words], env: Callable[[object], Raw]) -> None:
        self._given = {name: mapping(each) for name, each in mapping(raw.get("features")).items()}
        self._off = set(texts(raw.get("opt_in_features")))
        self._words, self._env = words, env
        self._drafts: set[str] = set()
        self.texts: Raw = {}
        self.differences: list[str] = []

    def of_variant(self, name: str, variant: Raw, *, base: str) -> Raw:
        """Return what one variant says of features.

        Args:
            name, variant: of the variant.
            base: name of the recipe's own variant, which comes first: its features are the recipe's.
        """
        chosen = mapping(variant.get("default_modes"))
        made = {}
        for feature, each in self._given.items():
            words = self._read(feature, self._mode(each, text(chosen.get(feature)), name))
            if words is not None:
                made[feature] = words
        if name == base:
            self.texts = dict(made)
        on = [feature for feature in chosen if feature in self._off and feature in made and feature not in self._drafts]
        own = {feature: words for feature, words in made.items() if self.texts.setdefault(feature, words) != words}
        missing: Raw = {feature: {} for feature in self.texts if feature not in made}
        return kept(features={**own, **missing}, features_on=on)

    def on(self, strategy: str) -> list[str]:
        """Return the features that a strategy has on."""
        only = {name: texts(each.get("strategies")) for name, each in self._given.items()}
        fitting = [name for name in self.texts if not only[name] or strategy in only[name]]
        return [name for name in fitting if name not in self._off and name not in self._drafts]

    def _mode(self, feature: Raw, chosen: str, variant: str) -> Raw:
        """Return a feature, or the one of its modes that a variant takes, on Hopper."""
        if "modes" in feature:
            modes = {name: mapping(mode) for name, mode in mapping(feature["modes"]).items()}
            fitting = [
                name
                for name, mode in modes.items()
                if variant in (texts(mode.get("variants")) or [variant])
                and text(mapping(mode.get("hardware")).get(GENERATION)) != "unsupported"
            ]
            wanted = (chosen, text(feature.get("default_mode")), *fitting)
            feature = next((modes[name] for name in wanted if name in fitting), {})
        elif text(mapping(feature.get("hardware")).get(GENERATION)) == "unsupported":
            feature = {}
        return {key: general(feature).get(key, feature.get(key)) for key in ("args", "env")}

    def _read(self, name: str, feature: Raw) -> Raw | None:
        try:
            said = self._words(texts(feature["args"]))
        except Refusal as refusal:
            self._leave_out(name, refusal.found.rpartition(".yaml: ")[2])
            return None
        if said.sizes:
            self._leave_out(name, "it changes sizes, which a strategy says")
            return None
        if '"model"' in str(said.flags.get("speculative-config", "")):
            self._drafts.add(name)
            self.differences.append(f"feature {shown(name)} is off: its draft model is not pinned")
        return {"flags": said.flags, **kept(env=self._env(feature["env"]))}

    def _leave_out(self, name: str, why: str) -> None:
        self.differences.append(f"feature {shown(name)} left out: {why}")
