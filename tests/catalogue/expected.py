"""Commands as vLLM's recipe catalogue puts them together, from its YAML alone.

Nothing here knows muster's importer or planner: it is what they are held against. Rules, in the catalogue's order, the
last one wins: model, variant, variant on the exact GPU, strategy with its sizes, the recipe's word on the strategy, GPU
generation (a strategy's own block replaces the recipe's and the variant's), strategy on the exact GPU, features.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GENERATION, BRAND = "hopper", "nvidia"
GPUS_PER_HOST = 8
GPU_OF: Mapping[str, str] = {"H100": "h100", "H800": "h100", "H200": "h200", "H20-3e": "h200", "H20": ""}
"""Product -> whose words it takes; the catalogue has none on H800, H20 and H20-3e, and H20 is no other's like."""
GIGABYTES: Mapping[str, int] = {"H100": 80, "H800": 80, "H200": 141, "H20-3e": 141, "H20": 96}
HEAD, FABRIC = "$HEAD_IP", "$IFACE_NAME"
SHORT = {"-tp": "tensor-parallel-size", "-dp": "data-parallel-size", "-pp": "pipeline-parallel-size"}

ENGINE = "a release in the place of a nightly, an image, a commit or a pin"
PACKAGES = "a package is not installed with the engine"
INDEX = "a package from an index of its own is left to the user"


@dataclass(frozen=True)
class Command:
    """What one host runs: model, flag -> value ("" for none), variables."""

    model: str
    flags: Mapping[str, str]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Cell:
    """One way to serve one model."""

    raw: Mapping[str, Any]
    variant: str
    strategy: str
    product: str
    hosts: int

    @property
    def gpu(self) -> str:
        """The catalogue's name of the GPU; "" where it has none."""
        return GPU_OF[self.product]


def strategies(raw: Mapping[str, Any]) -> list[str]:
    """Return the strategies that a recipe offers on any GPU."""
    listed = _texts(raw.get("compatible_strategies"))
    granted = [name for name, by in _map(raw.get("strategy_hardware")).items() if "supported" in _map(by).values()]
    return [*listed, *(name for name in granted if name not in listed)]


def host_counts(strategy: str, counts: Sequence[int]) -> list[int]:
    """Return the numbers of hosts that a strategy is for; pools of prefill and decode count once."""
    return [count for count in counts if (count > 1) == strategy.startswith("multi_node")]


def not_offered(cell: Cell) -> str:
    """Return why the catalogue does not offer a cell; "" where it does."""
    variant = _variant(cell)
    precision = _text(variant.get("precision"))
    only = _map(variant.get("precision_hardware")) or (
        {"brand": "NVIDIA", "generation": "blackwell"} if precision in ("nvfp4", "fp4") else {}
    )
    if only.get("brand", "NVIDIA") != "NVIDIA" or only.get("generation", GENERATION) != GENERATION:
        return f"{precision} weights"
    if _keyed(_map(_map(cell.raw.get("meta")).get("hardware")), cell) == "unsupported":
        return "the model on this GPU"
    supported = _texts(variant.get("supported_hardware"))
    if supported and not {GENERATION, cell.gpu} & set(supported) and (cell.gpu or not {"h100", "h200"} <= {*supported}):
        return "the variant on this GPU"
    word = _keyed(_map(_map(cell.raw.get("strategy_hardware")).get(cell.strategy)), cell)
    listed = cell.strategy in _texts(cell.raw.get("compatible_strategies"))
    if word == "unsupported" or (word is None and not listed):
        return "the strategy on this GPU"
    return ""


def files(raw: Any) -> Iterator[str]:
    """Yield the chat templates and parser plugins that any command of a recipe names."""
    if isinstance(raw, str):
        if raw.endswith((".jinja", ".py")) and " " not in raw:
            yield raw
    elif isinstance(raw, (Mapping, list)):
        for each in raw.values() if isinstance(raw, Mapping) else raw:
            yield from files(each)


def packages(cell: Cell) -> set[str]:
    """Return the packages that the catalogue installs beside a released engine, from the engine's index."""
    kinds = {_text(each.get("command")): _kind(_text(each.get("command"))) for each in _needed(cell)}
    words = [re.sub(r"--torch-backend \S+", "", command).split()[3:] for command, kind in kinds.items() if not kind]
    return {word.strip("'\"") for line in words for word in line if not word.startswith("-")}


def installs(cell: Cell) -> list[str]:
    """Return what the catalogue installs that no index of the engine has, by kind."""
    model, found = _map(cell.raw.get("model")), []
    image = _variant(cell).get("docker_image") or model.get("docker_image")
    image = _map(image).get(BRAND) if isinstance(image, Mapping) else image
    tags = list(image.values()) if isinstance(image, Mapping) else [image]
    own = [tag for tag in map(_text, tags) if not re.fullmatch(r"(vllm/vllm-openai:(latest|v[0-9.]+))?", tag)]
    if own or _text(model.get("nightly_required")) == "true":
        found.append(ENGINE)
    return [*found, *filter(None, (_kind(_text(each.get("command"))) for each in _needed(cell)))]


def _needed(cell: Cell) -> list[Mapping[str, Any]]:
    all_of_them = [_map(each) for each in cell.raw.get("dependencies") or ()]
    ours = [each for each in all_of_them if _text(each.get("brand")).lower() in ("", BRAND)]
    return [each for each in ours if _text(each.get("optional")) != "true"]


def _kind(command: str) -> str:
    if any(word in command for word in ("git+", "git clone", "--pre", "vllm==")):
        return ENGINE
    return INDEX if "index-url" in command else ""


def commands(cell: Cell) -> list[Command]:
    """Return the command of each host, the head's first. `$HEAD_IP` and `$IFACE_NAME` stand for what hosts say."""
    model = _text(_variant(cell).get("model_id")) or _text(_map(cell.raw.get("model")).get("model_id"))
    return [Command(model, flags(list(_words(cell, rank))), _env(cell)) for rank in range(cell.hosts)]


def flags(words: Sequence[str]) -> dict[str, str]:
    """Return flag -> value of a command's words as vLLM's parser reads them: the last one wins."""
    found: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--") or word in SHORT:
            name, equals, value = word.partition("=")
            beginning, dot, field = SHORT.get(name, name.removeprefix("--")).partition(".")
            name = beginning.replace("_", "-") + dot + field
            found.pop(name, None)
            found[name] = value
            name = "" if equals else name
        else:
            found[name] = f"{found.get(name, '')} {word}".strip()
    return found


def _words(cell: Cell, rank: int) -> Iterator[str]:
    model, variant, override = _map(cell.raw.get("model")), _variant(cell), _override(cell)
    yield from _texts(model.get("base_args"))
    yield from _texts(variant.get("extra_args"))
    yield from _texts(_exact(variant, cell).get("extra_args"))
    yield from _parallel(cell, rank)
    yield from _texts(override.get("extra_args"))
    yield from _texts(override.get("vllm_args"))
    for block in _hardware(cell):
        yield from _texts(block.get("extra_args"))
    for feature in _features(cell):
        yield from _texts(feature.get("args"))


def _parallel(cell: Cell, rank: int) -> Iterator[str]:
    kind, gpus, hosts = cell.strategy.partition("_node_")[2], GPUS_PER_HOST, cell.hosts
    if kind in ("tep", "dep"):
        yield "--enable-expert-parallel"
    if hosts == 1:
        size = _single_host_tp(cell) if cell.strategy == "single_node_tp" else gpus
        yield from ("--data-parallel-size" if kind == "dep" else "--tensor-parallel-size", str(size))
    elif kind == "dep":
        local = _last(_override_words(cell), "--data-parallel-size-local") or str(gpus)
        yield from ("--data-parallel-hybrid-lb", "--data-parallel-size", str(gpus * hosts))
        yield from ("--data-parallel-size-local", str(gpus), "--data-parallel-address", HEAD)
        if rank:
            yield from ("--data-parallel-start-rank", str(rank * int(local)))
    elif kind == "tp_dp":
        yield from ("--tensor-parallel-size", str(gpus), "--data-parallel-size", str(hosts))
        yield from ("--data-parallel-size-local", "1", "--data-parallel-address", HEAD)
        if rank:
            yield from ("--data-parallel-start-rank", str(rank))
    else:
        yield from ("--tensor-parallel-size", str(gpus if kind == "tp_pp" else gpus * hosts))
        if kind == "tp_pp":
            yield from ("--pipeline-parallel-size", str(hosts))
        yield from ("--nnodes", str(hosts), "--node-rank", str(rank), "--master-addr", HEAD)
        if rank:
            yield "--headless"


def _single_host_tp(cell: Cell) -> int:
    """Return TP on one host: what variant or recipe declares, else one GPU where the weights fit it, else all."""
    variant = _variant(cell)
    for declared in (variant.get("tp"), _override(cell).get("tp")):
        value = _keyed(declared, cell) if isinstance(declared, Mapping) else declared
        if value is not None and int(value) > 0:
            return min(int(value), GPUS_PER_HOST)
    needed = float(_text(variant.get("vram_minimum_gb")) or 0)
    return 1 if 0 < needed <= GIGABYTES[cell.product] else GPUS_PER_HOST


def _env(cell: Cell) -> dict[str, str]:
    variant, override = _variant(cell), _override(cell)
    layers = [
        _map(cell.raw.get("model")).get("base_env"),
        variant.get("extra_env"),
        _exact(variant, cell).get("extra_env"),
        {"GLOO_SOCKET_IFNAME": FABRIC, "NCCL_SOCKET_IFNAME": FABRIC} if cell.hosts > 1 else {},
        override.get("env"),
        override.get("extra_env"),
        *(block.get("extra_env") for block in _hardware(cell)),
        *(feature.get("env") for feature in _features(cell)),
    ]
    return {name: _text(value) for layer in layers for name, value in _map(layer).items()}


def _hardware(cell: Cell) -> list[Mapping[str, Any]]:
    own = _of_generation(_override(cell))
    general = [own] if own else [_of_generation(cell.raw), _of_generation(_variant(cell))]
    return [*general, _exact(_override(cell), cell)]


def _override_words(cell: Cell) -> list[str]:
    own = _override(cell)
    blocks = (own.get("vllm_args"), own.get("extra_args"), _of_generation(own).get("extra_args"))
    return [word for words in (*blocks, _exact(own, cell).get("extra_args")) for word in _texts(words)]


def _features(cell: Cell) -> Iterator[Mapping[str, Any]]:
    """Yield what each feature that is on by default says on this variant and GPU."""
    chosen = _map(_variant(cell).get("default_modes"))
    off = {
        *_texts(cell.raw.get("opt_in_features")),
        *_texts(_map(cell.raw.get("hardware_opt_in_features")).get(cell.gpu)),
    }
    for name, each in _map(cell.raw.get("features")).items():
        feature = _map(each)
        only = _texts(feature.get("strategies"))
        if (name in off and name not in chosen) or (only and cell.strategy not in only):
            continue
        if isinstance(feature.get("modes"), Mapping):
            feature = _mode(feature, _text(chosen.get(name)), cell)
            special = _keyed(_map(feature.get("hardware_overrides")), cell)
        else:
            special = _of_generation(feature)
        yield {key: _map(special).get(key, feature.get(key)) for key in ("args", "env")}


def _mode(feature: Mapping[str, Any], chosen: str, cell: Cell) -> Mapping[str, Any]:
    modes = {name: _map(mode) for name, mode in _map(feature.get("modes")).items()}
    allowed = [
        name
        for name, mode in modes.items()
        if cell.variant in (_texts(mode.get("variants")) or [cell.variant])
        and "unsupported" not in (_map(mode.get("hardware")).get(key) for key in (GENERATION, cell.gpu))
    ]
    wanted = (chosen, _text(feature.get("default_mode")), *allowed)
    return next((modes[name] for name in wanted if name in allowed), {})


def _variant(cell: Cell) -> Mapping[str, Any]:
    return _map(_map(cell.raw.get("variants")).get(cell.variant))


def _override(cell: Cell) -> Mapping[str, Any]:
    return _map(_map(cell.raw.get("strategy_overrides")).get(cell.strategy))


def _of_generation(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    blocks = _map(holder.get("hardware_overrides"))
    return _map(blocks.get(GENERATION) or blocks.get(BRAND))


def _exact(holder: Mapping[str, Any], cell: Cell) -> Mapping[str, Any]:
    return _map(_map(holder.get("hardware_overrides")).get(cell.gpu)) if cell.gpu else {}


def _keyed(by: Mapping[str, Any], cell: Cell) -> Any:
    """Return the most exact word of a mapping by GPU, generation, brand or `default`.

    Of a product that is no other's like: what both H100 and H200 have.
    """
    gpu = cell.gpu or ("h100" if by.get("h100") == by.get("h200") else "")
    keys = [key for key in (gpu, GENERATION, BRAND, "default") if key]
    return next((by[key] for key in keys if key in by), None)


def _last(words: Sequence[str], flag: str) -> str:
    places = [place for place, word in enumerate(words) if word == flag]
    return words[places[-1] + 1] if places else ""


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> list[str]:
    return [str(each) for each in value if str(each)] if isinstance(value, (list, tuple)) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
