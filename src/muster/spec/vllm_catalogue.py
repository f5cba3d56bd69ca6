"""vLLM's recipe catalogue -> a recipe. One model's YAML, one variant of it, with its layers kept.

The catalogue's text is a stranger's: whatever comes out passes the types of a recipe. What cannot be carried over is
refused by name; what is served otherwise than there is said, one line each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from muster.errors import Refusal, shown, unknown
from muster.guard.endpoint_kinds import COMPLETIONS
from muster.spec import catalogue_words, reserved_variables
from muster.spec.catalogue_words import NotCarried, Words
from muster.spec.hardware import GPUS

Raw = dict[str, Any]

VENDOR, GENERATION = "nvidia", "hopper"
LIKE: Mapping[str, str | None] = {"H100": "h100", "H800": "h100", "H200": "h200", "H20-3e": "h200", "H20": None}
"""GPU product -> whose settings it takes: the catalogue has no word on H800, H20 and H20-3e."""

STRATEGIES: Mapping[str, Raw] = {
    "single_node_tp": {"hosts": 1, "sizes": {"tp": "host"}},
    "single_node_tep": {"hosts": 1, "sizes": {"tp": "host", "ep": True}},
    "single_node_dep": {"hosts": 1, "sizes": {"tp": 1, "dp": "all", "ep": True}},
    "multi_node_tp": {"min_hosts": 2, "sizes": {"tp": "all"}},
    "multi_node_tep": {"min_hosts": 2, "sizes": {"tp": "all", "ep": True}},
    "multi_node_dep": {"min_hosts": 2, "sizes": {"tp": 1, "dp": "all", "ep": True}, "load_balancing": "hybrid"},
    "multi_node_tp_pp": {"min_hosts": 2, "sizes": {"tp": "host", "pp": "hosts"}},
    "multi_node_tp_dp": {"min_hosts": 2, "sizes": {"tp": "host", "dp": "all"}},
}
ABOUT: Mapping[str, str] = {
    "single_node_tp": "Tensor parallel on one host.",
    "single_node_tep": "Tensor parallel on one host, experts whole.",
    "single_node_dep": "A data parallel rank on each GPU of one host, experts spread.",
    "multi_node_tp": "Tensor parallel over all hosts.",
    "multi_node_tep": "Tensor parallel over all hosts, experts whole.",
    "multi_node_dep": "A data parallel rank on each GPU, experts spread; every host answers for its own.",
    "multi_node_tp_pp": "Tensor parallel on each host, a pipeline over hosts.",
    "multi_node_tp_dp": "One engine on each host.",
}


class Importer:
    """One variant of one model on its way into a recipe.

    Args:
        raw: the model's YAML, every value a text.
        variant: its name.
        where: of the file, for messages.
    """

    def __init__(self, raw: object, variant: str, where: str) -> None:
        self.where = where
        self.raw = _mapping(raw)
        variants = _mapping(self.raw.get("variants"))
        if variant not in variants:
            raise unknown("variant", variant, variants, where=where)
        self.name, self.variant = variant, _mapping(variants[variant])
        self.model = _mapping(self.raw.get("model"))
        self.differences: list[str] = []

    def recipe(self, source: Mapping[str, str]) -> Raw:
        """Return the recipe as data for its YAML file.

        Raises:
            Refusal: naming what cannot be carried over.
        """
        self._refuse()
        model_id = _text(self.variant.get("model_id") or self.model.get("model_id"))
        base = self._words([*_texts(self.model.get("base_args")), *_texts(self.variant.get("extra_args"))], named=True)
        features, on = self._features()
        strategies = {
            name: self._strategy(name, base, on)
            for name in _texts(self.raw.get("compatible_strategies"))
            if self._takes(name)
        }
        if not strategies:
            raise self._refusal("no strategy that runs on Hopper", "one of " + ", ".join(STRATEGIES))
        wanted = _text(self.raw.get("default_strategy"))
        default = wanted if wanted in strategies else next(iter(strategies))
        meta = _mapping(self.raw.get("meta"))
        endpoint = self._endpoint(meta, model_id)
        suffix = "" if self.name == "default" else f"-{self.name}"
        return {
            "name": re.sub(r"[^a-z0-9]+", "-", f"{model_id.split('/')[-1].lower()}{suffix}").strip("-")[:40].strip("-"),
            "title": _text(meta.get("title")) or model_id,
            "model": model_id,
            "min_vllm": self._floor(),
            "context": self._context(),
            "source": {**source, "variant": self.name},
            **({} if endpoint == COMPLETIONS else {"endpoint": endpoint}),
            **_kept(flags=base.flags, env=self._env(self.model.get("base_env"), self.variant.get("extra_env"))),
            **_kept(hardware=self._hardware(self.raw, self.variant), features=features),
            "strategies": strategies,
            "defaults": {"any": default},
        }

    def _endpoint(self, meta: Raw, model_id: str) -> str:
        """Return what the model answers: the catalogue has one task for embeddings and reranking."""
        if "embedding" not in _texts(meta.get("tasks")):
            return COMPLETIONS
        endpoint = "reranking" if "rerank" in model_id.lower() else "embeddings"
        self.differences.append(f"endpoint: {endpoint}, by the task `embedding` and the model's name")
        return endpoint

    def _refuse(self) -> None:
        """Refuse what muster cannot serve, by its name."""
        if self.raw.get("omni") or "omni" in _texts(_mapping(self.raw.get("meta")).get("tasks")):
            raise self._refusal("an omni model: it needs vllm-omni", "a model that `vllm serve` serves")
        if _text(self.variant.get("precision")) == "nvfp4":
            raise self._refusal("NVFP4 weights: not for Hopper", "another variant")
        supported = _texts(self.variant.get("supported_hardware"))
        if supported and not {"h100", "h200", GENERATION, VENDOR} & set(supported):
            raise self._refusal(f"variant {self.name} is for {', '.join(supported)}", "a variant for Hopper")
        if _text(self.model.get("nightly_required")) == "true":
            raise self._refusal("a nightly engine", "a released version of vLLM")
        for each in self.raw.get("dependencies") or ():
            dependency = _mapping(each)
            brand, command = _text(dependency.get("brand")), _text(dependency.get("command"))
            if _text(dependency.get("optional")) == "true" or (brand and brand.lower() != VENDOR):
                continue
            if "git+" in command or "git clone" in command:
                raise self._refusal(f"a package from git: {shown(command)}", "packages of an index, with hashes")
            self.differences.append(f"not carried out: {shown(command)}")
        for image in (self.variant.get("docker_image"), _mapping(self.model.get("docker_image")).get(VENDOR)):
            if image and not re.fullmatch(r"vllm/vllm-openai:(latest|v[0-9.]+)", _text(image)):
                raise self._refusal(f"an image of its own: {shown(_text(image))}", "a released version of vLLM")

    def _takes(self, name: str) -> bool:
        if name not in STRATEGIES:
            self.differences.append(f"strategy {shown(name)} left out: prefill and decode pools are not served")
            return False
        by = _mapping(_mapping(self.raw.get("strategy_hardware")).get(name))
        kinds = [kind for kind, word in by.items() if _text(word) == "unsupported"]
        if GENERATION in kinds or {"h100", "h200"} <= set(kinds):
            self.differences.append(f"strategy {name} left out: not supported on Hopper")
            return False
        return True

    def _strategy(self, name: str, base: Words, on: Mapping[str, Sequence[str]]) -> Raw:
        own = _mapping(_mapping(self.raw.get("strategy_overrides")).get(name))
        said = self._words([*_texts(own.get("vllm_args")), *_texts(own.get("extra_args"))], named=True)
        sizes = {**base.sizes, **STRATEGIES[name]["sizes"], **said.sizes}
        made = {"about": ABOUT[name], **STRATEGIES[name], "sizes": sizes}
        tp = self.variant.get("tp") or own.get("tp")
        hardware = self._hardware(own) if own.get("hardware_overrides") else None
        if name in ("single_node_tp", "single_node_tep"):
            hardware = self._sized(sizes, tp, hardware)
        names = [feature for feature, only in on.items() if not only or name in only]
        return {
            **made,
            **_kept(flags=said.flags, env=self._env(own.get("env"), own.get("extra_env")), features=names),
            **_kept(served_model_name=said.served or base.served),
            **({} if hardware is None else {"hardware": hardware}),
        }

    def _sized(self, sizes: Raw, tp: object, hardware: Raw | None) -> Raw | None:
        """Return the hardware block with TP as small as the variant's memory allows, or as the catalogue has it."""
        needed = _number(self.variant.get("vram_minimum_gb"))
        by_gpu = _mapping(tp)
        blocks = self._hardware(self.raw, self.variant) if hardware is None else hardware
        for product, gpu in GPUS.items():
            fixed = _number(by_gpu.get(LIKE[product] or "", 0)) if by_gpu else _number(tp)
            gigabytes = round(gpu.memory_bytes / 1e9 / 1.07)  # as sold: 80, 96, 141
            smallest = next((size for size in (1, 2, 4) if size * gigabytes >= needed), 0) if needed else 0
            size = fixed or smallest
            if size and size != 8:
                block = dict(blocks.get(product, {}))
                blocks = {**blocks, product: {**block, "sizes": {**sizes, "tp": size}}}
        return blocks or None

    def _features(self) -> tuple[Raw, dict[str, Sequence[str]]]:
        """Return the features, and which are on by default: name -> the strategies it is for (none: all)."""
        off = set(_texts(self.raw.get("opt_in_features")))
        features: Raw = {}
        on: dict[str, Sequence[str]] = {}
        for name, each in _mapping(self.raw.get("features")).items():
            feature = _mapping(each)
            if _text(_mapping(feature.get("hardware")).get(GENERATION)) == "unsupported":
                continue
            try:
                said = self._words(self._feature_args(name, feature))
            except Refusal as refusal:
                self.differences.append(f"feature {shown(name)} left out: {refusal.found.rpartition('variant ')[2]}")
                continue
            if said.sizes:
                self.differences.append(f"feature {shown(name)} left out: it changes sizes, which a strategy says")
                continue
            draft = '"model"' in str(said.flags.get("speculative-config", ""))
            if draft:
                self.differences.append(f"feature {shown(name)} is off: its draft model is not pinned")
            about = _text(feature.get("description"))
            features[name] = {"flags": said.flags, **_kept(env=self._env(feature.get("extra_env")), about=about)}
            if name not in off and not draft:
                on[name] = _texts(feature.get("strategies"))
        return features, on

    def _feature_args(self, name: str, feature: Raw) -> list[str]:
        modes = _mapping(feature.get("modes"))
        if modes:
            chosen = _text(_mapping(self.variant.get("default_modes")).get(name)) or _text(feature.get("default_mode"))
            only = {mode: _texts(_mapping(each).get("variants")) for mode, each in modes.items()}
            fitting = [mode for mode, variants in only.items() if not variants or self.name in variants]
            mode = chosen if chosen in fitting else next(iter(fitting), "")
            feature = _mapping(modes.get(mode))
        by = _mapping(feature.get("hardware_overrides"))
        given = _mapping(by.get(GENERATION) or by.get(VENDOR))
        return _texts(given.get("args") or feature.get("args"))

    def _hardware(self, *holders: Raw) -> Raw:
        """Return flags and variables by generation and product, of one or more holders; the last one wins."""
        blocks: Raw = {}
        for holder in holders:
            given = _mapping(holder.get("hardware_overrides"))
            general = given.get(GENERATION) or given.get(VENDOR)
            for kind, block in [(GENERATION, general), *((p, given.get(like or "")) for p, like in LIKE.items())]:
                said = self._words(_texts(_mapping(block).get("extra_args")))
                if said.sizes:
                    self.differences.append(f"sizes in hardware_overrides left out: {', '.join(said.sizes)}")
                env = self._env(_mapping(block).get("extra_env"))
                if said.flags or env:
                    before = blocks.get(kind, {})
                    merged = {
                        "flags": {**before.get("flags", {}), **said.flags},
                        "env": {**before.get("env", {}), **env},
                    }
                    blocks[kind] = {name: values for name, values in merged.items() if values}
        return blocks

    def _env(self, *layers: object) -> Raw:
        env = {}
        for name, value in ((name, value) for layer in layers for name, value in _mapping(layer).items()):
            instead = reserved_variables.instead_of(name)
            if instead is None:
                env[name] = _text(value)
            else:
                self.differences.append(f"{shown(name)} left out: {instead}")
        return env

    def _words(self, words: Sequence[str], *, named: bool = False) -> Words:
        """Return what words of a command line say; what is left out of them is noted.

        Args:
            words: as the catalogue has them.
            named: whether they may name what is served.

        Raises:
            Refusal: a word that no recipe can hold.
        """
        try:
            said = catalogue_words.read(words)
        except NotCarried as problem:
            raise self._refusal(problem.found, problem.needed) from None
        self.differences += said.left_out
        if said.served and not named:
            self.differences.append(f"--served-model-name {shown(said.served)} left out: a strategy says it")
        return said

    def _floor(self) -> str:
        text = _text(self.variant.get("min_vllm_version") or self.model.get("min_vllm_version"))
        if not re.fullmatch(r"\d+\.\d+(\.\d+)?", text):
            raise self._refusal(f"min_vllm_version {shown(text)}", "a released version of vLLM")
        return text if text.count(".") == 2 else f"{text}.0"

    def _context(self) -> int:
        length = _number(self.model.get("context_length"))
        if not length:
            raise self._refusal("no context_length", "the longest context in tokens")
        return length

    def _refusal(self, found: str, needed: str) -> Refusal:
        what = f"{self.where}, variant {self.name}: {found}"
        return Refusal(what, needed=needed, fix="import another variant or model")


def _kept(**values: Any) -> Raw:
    return {name: value for name, value in values.items() if value}


def _mapping(value: object) -> Raw:
    return {str(key): each for key, each in value.items()} if isinstance(value, Mapping) else {}


def _texts(value: object) -> list[str]:
    return [_text(each) for each in value] if isinstance(value, (list, tuple)) else []


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _number(value: object) -> int:
    return catalogue_words.number(_text(value))
