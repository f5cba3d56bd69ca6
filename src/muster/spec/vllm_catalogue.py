"""vLLM's recipe catalogue -> a recipe: one model's YAML, with its layers and variants kept.

The catalogue's text is a stranger's: whatever comes out passes the types of a recipe. What cannot be carried over is
refused by name; what is served otherwise than there is said, one line each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from muster.errors import Refusal, shown, unknown
from muster.on_host.whole_files import text_sha256
from muster.spec import catalogue_packages, catalogue_releases, catalogue_words, reserved_variables
from muster.spec.catalogue_features import Features
from muster.spec.catalogue_text import (
    GENERATION,
    LIKE,
    VENDOR,
    Raw,
    exact,
    general,
    kept,
    keyed,
    mapping,
    number,
    products,
    text,
    texts,
)
from muster.spec.catalogue_words import NotCarried, Words

STRATEGIES: Mapping[str, Raw] = {
    "single_node_tp": {"hosts": 1, "sizes": {"tp": "fit"}},
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
    """One model on its way into a recipe.

    Args:
        raw: the model's YAML, every value a text.
        where: of the file, for messages.
        files: path, as the catalogue's commands name it -> text of chat templates and plugins that may come along.
    """

    def __init__(self, raw: object, where: str, files: Mapping[str, str] | None = None) -> None:
        self.where, self.raw, self.files = where, mapping(raw), files or {}
        self.brought: Raw = {}
        self.model = mapping(self.raw.get("model"))
        self.packages: list[str] = []
        self.differences: list[str] = []
        self._floor_at_least = "0"

    def recipe(self, source: Mapping[str, str], variant: str = "default") -> Raw:
        """Return the recipe as data for its YAML file, with all variants that Hopper serves.

        Args:
            source: path and hash of the file.
            variant: the one that is taken where nobody names another.

        Raises:
            Refusal: naming what cannot be carried over.
        """
        self._refuse()
        model_id = text(self.model.get("model_id"))
        base = self._words(texts(self.model.get("base_args")), named=True)
        variants = self._variants(variant)
        strategies = self._strategies(base)
        if not strategies:
            raise self._refusal("no strategy that runs on Hopper", "one of " + ", ".join(STRATEGIES))
        features = Features(self.raw, self._words, self._env)
        for name, each in variants.items():
            each |= features.of_variant(name, mapping(mapping(self.raw.get("variants")).get(name)), base=variant)
        for name, strategy in strategies.items():
            strategy |= kept(features=features.on(name))
        self.differences += features.differences
        wanted = text(self.raw.get("default_strategy"))
        declared = mapping(mapping(self.raw.get("strategy_overrides")).get("single_node_tp")).get("tp")
        return {
            "name": re.sub(r"[^a-z0-9]+", "-", model_id.split("/")[-1].lower()).strip("-")[:40].strip("-"),
            "title": text(mapping(self.raw.get("meta")).get("title")) or model_id,
            "model": model_id,
            "min_vllm": self._floor(self.model),
            "context": self._context(),
            "source": {**source, "variant": variant},
            **kept(endpoint=self._endpoint(model_id), files=self.brought),
            **kept(packages=list(dict.fromkeys(self.packages))),
            **kept(fit=_fit(declared), flags=base.flags, env=self._env(self.model.get("base_env"))),
            **kept(hardware=self._hardware(self.raw), features=features.texts),
            "variant": variant,
            "variants": variants,
            "strategies": strategies,
            "defaults": {"any": wanted if wanted in strategies else next(iter(strategies))},
        }

    def _endpoint(self, model_id: str) -> str:
        """Return what the model answers, "" for completions; embeddings and reranking are one task of the catalogue."""
        if "embedding" not in texts(mapping(self.raw.get("meta")).get("tasks")):
            return ""
        endpoint = "reranking" if "rerank" in model_id.lower() else "embeddings"
        self.differences.append(f"endpoint: {endpoint}, by the task `embedding` and the model's name")
        return endpoint

    def _refuse(self) -> None:
        """Refuse a model that muster cannot serve, by what keeps it out."""
        if self.raw.get("omni") or "omni" in texts(mapping(self.raw.get("meta")).get("tasks")):
            raise self._refusal("an omni model: it needs vllm-omni", "a model that `vllm serve` serves")
        if catalogue_releases.only_transcribes(text(self.model.get("model_id"))):
            raise self._refusal("a model that only transcribes: no canary asks with audio", "a model that answers text")
        if text(self.model.get("nightly_required")) == "true":
            floor = text(self.model.get("min_vllm_version"))
            if not catalogue_releases.of_nightly(floor):
                raise self._refusal("a nightly engine", "a released version of vLLM")
            self._released("a nightly engine")
        for each in self.raw.get("dependencies") or ():
            dependency = mapping(each)
            brand, command = text(dependency.get("brand")), text(dependency.get("command"))
            if text(dependency.get("optional")) == "true" or (brand and brand.lower() != VENDOR):
                continue
            if catalogue_releases.of_package(command):
                self._released(shown(command))
                continue
            if "git+" in command or "git clone" in command:
                raise self._refusal(f"a package from git: {shown(command)}", "packages of an index, with hashes")
            packages = catalogue_packages.read(command)
            if packages is None:
                self.differences.append(f"not carried out: {shown(command)}")
            else:
                self.packages += packages
        image = self.model.get("docker_image")
        self._check_image(mapping(image).get(VENDOR) if isinstance(image, Mapping) else image)

    def _check_image(self, value: object) -> None:
        tags = [text(each) for each in value.values()] if isinstance(value, Mapping) else [text(value)]
        for image in tags:
            if not image or re.fullmatch(r"vllm/vllm-openai:(latest|v[0-9.]+)", image):
                continue
            if not catalogue_releases.of_image(image):
                raise self._refusal(f"an image of its own: {shown(image)}", "a released version of vLLM")
            self._released(f"the image {image}")

    def _released(self, instead_of: str) -> None:
        self._floor_at_least = catalogue_releases.RELEASE
        self.differences.append(f"vLLM {self._floor_at_least} or newer in the place of {instead_of}")

    def _variants(self, wanted: str) -> Raw:
        """Return the variants for Hopper; those left out are said.

        Raises:
            Refusal: the wanted one is none, or cannot be carried over.
        """
        given = mapping(self.raw.get("variants"))
        if wanted not in given:
            raise unknown("variant", wanted, given, where=self.where)
        variants = {}
        for name, each in given.items():
            try:
                variants[name] = self._variant(mapping(each))
            except Refusal as refusal:
                if name == wanted:
                    found = refusal.found.removeprefix(f"{self.where}: ")
                    raise self._refusal(f"variant {name}: {found}", refusal.needed or "") from None
                self.differences.append(f"variant {shown(name)} left out: {refusal.found.rpartition('.yaml: ')[2]}")
        return {wanted: variants[wanted], **variants}

    def _variant(self, variant: Raw) -> Raw:
        precision, only = text(variant.get("precision")), mapping(variant.get("precision_hardware"))
        if not only and precision in ("nvfp4", "fp4"):
            raise self._refusal(f"{precision.upper()} weights: not for Hopper", "another variant")
        if (text(only.get("brand")) or VENDOR).lower() != VENDOR or text(only.get("generation")) not in (
            "",
            GENERATION,
        ):
            raise self._refusal(f"{shown(precision.upper())} weights: not for Hopper", "another variant")
        supported = texts(variant.get("supported_hardware"))
        if supported and not products(supported):
            raise self._refusal(f"for {shown(', '.join(supported))}: not for Hopper", "a variant for Hopper")
        self._check_image(variant.get("docker_image"))
        said = self._words(texts(variant.get("extra_args")))
        if said.sizes:
            self.differences.append(f"sizes of a variant left out: {', '.join(said.sizes)}")
        gpus = products(supported) if supported else []
        floor, own = self._floor({**self.model, **kept(**variant)}), self._floor(self.model)
        return {
            **kept(model=text(variant.get("model_id")), min_vllm=floor if floor != own else ""),
            **kept(vram_minimum_gb=number(variant.get("vram_minimum_gb")), fit=_fit(variant.get("tp"))),
            **kept(gpus=gpus if len(gpus) < len(LIKE) else [], flags=said.flags),
            **kept(env=self._env(variant.get("extra_env")), hardware=self._hardware(variant)),
        }

    def _strategies(self, base: Words) -> Raw:
        listed = texts(self.raw.get("compatible_strategies"))
        gates = mapping(self.raw.get("strategy_hardware"))
        strategies = {}
        for name in dict.fromkeys([*listed, *gates]):
            words = {product: text(keyed(gates.get(name), product)) for product in LIKE}
            gpus = [product for product, word in words.items() if (word or name in listed) and word != "unsupported"]
            if not gpus and name in listed:
                self.differences.append(f"strategy {name} left out: not supported on Hopper")
            if not gpus:
                continue
            if name not in STRATEGIES:
                self.differences.append(f"strategy {shown(name)} left out: prefill and decode pools are not served")
                continue
            try:
                strategies[name] = self._strategy(name, base) | kept(gpus=gpus if len(gpus) < len(LIKE) else [])
            except Refusal as refusal:
                self.differences.append(f"strategy {name} left out: {refusal.found.rpartition('.yaml: ')[2]}")
        return strategies

    def _strategy(self, name: str, base: Words) -> Raw:
        own = mapping(mapping(self.raw.get("strategy_overrides")).get(name))
        said = self._words([*texts(own.get("extra_args")), *texts(own.get("vllm_args"))], named=True)
        sizes = {**base.sizes, **STRATEGIES[name]["sizes"], **said.sizes}
        if name.startswith("multi_node") and sizes.get("dp", 1) != 1:
            sizes["dp"] = "all"  # its number is that of the hosts that the catalogue's author had
        return {
            "about": ABOUT[name],
            **STRATEGIES[name],
            "sizes": sizes,
            **kept(flags=said.flags, env=self._env(own.get("env"), own.get("extra_env"))),
            **kept(hardware=self._hardware(own, sizes), served_model_name=said.served or base.served),
        }

    def _hardware(self, holder: Raw, sizes: Raw | None = None) -> Raw:
        """Return flags and variables by generation and product; sizes too, over those of a strategy."""
        blocks: Raw = {}
        exact_blocks = {product: exact(holder, product) for product in LIKE} if holder is not self.raw else {}
        for kind, block in {GENERATION: general(holder), **exact_blocks}.items():
            said = self._words(texts(block.get("extra_args")))
            if said.sizes and sizes is None:
                self.differences.append(f"sizes in hardware_overrides left out: {', '.join(said.sizes)}")
            own = {**sizes, **said.sizes} if said.sizes and sizes is not None else {}
            made = kept(flags=said.flags, env=self._env(block.get("extra_env")), sizes=own)
            if made or (block and sizes is not None):
                blocks[kind] = made
        return blocks

    def _env(self, *layers: object) -> Raw:
        env = {}
        for name, value in ((name, value) for layer in layers for name, value in mapping(layer).items()):
            instead = reserved_variables.instead_of(name)
            if instead is None:
                env[name] = text(value)
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
            said = catalogue_words.read(words, self.files)
        except NotCarried as problem:
            raise self._refusal(problem.found, problem.needed) from None
        for path in said.files:
            content = self.files[path]
            name = path.rpartition("/")[2]
            self.brought[name] = {"text": content, "sha256": text_sha256(content), "source": path}
            self.differences.append(f"{shown(path)} comes with the recipe")
        self.differences += said.left_out
        if said.served and not named:
            self.differences.append(f"--served-model-name {shown(said.served)} left out: a strategy says it")
        return said

    def _floor(self, holder: Raw) -> str:
        floor = text(holder.get("min_vllm_version"))
        if not re.fullmatch(r"\d{1,4}\.\d{1,4}(\.\d{1,4})?", floor):
            raise self._refusal(f"min_vllm_version {shown(floor)}", "a released version of vLLM")
        floor = floor if floor.count(".") == 2 else f"{floor}.0"
        return max(floor, self._floor_at_least, key=lambda version: [int(part) for part in version.split(".")])

    def _context(self) -> int:
        length = number(self.model.get("context_length"))
        if not length:
            raise self._refusal("no context_length", "the longest context in tokens")
        return length

    def _refusal(self, found: str, needed: str) -> Refusal:
        return Refusal(f"{self.where}: {found}", needed=needed, fix="import another model or variant")


def _fit(declared: Any) -> dict[str, int]:
    """Return GPUs of an engine by product, from one number for all or a mapping by GPU."""
    if not isinstance(declared, Mapping):
        return {"any": min(number(declared), 8)} if number(declared) else {}
    sizes = {product: min(number(keyed(declared, product)), 8) for product in LIKE}
    return {product: size for product, size in sizes.items() if size}
