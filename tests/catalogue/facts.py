"""Facts of vLLM's recipe catalogue, without its prose: what the tests read where the catalogue itself is not at hand.

    .venv/bin/python -m tests.catalogue.facts DIRECTORY > tests/catalogue/facts.jsonl

From vllm-project/recipes at 8959cf64 (2026-08-21), Apache-2.0: names, flags, variables, sizes, versions, commands of
packages; one line for each model. Blocks for other GPUs than Hopper are left out, as are pools of prefill and decode.
`elsewhere` stands for the address of an index.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from muster.spec import yaml_text

FILE = Path(__file__).with_name("facts.jsonl")
_MODEL = ("model_id", "min_vllm_version", "nightly_required", "docker_image", "context_length", "base_args", "base_env")
_TOP = ("opt_in_features", "compatible_strategies", "default_strategy", "strategy_hardware", "hardware_overrides")
_PROSE = frozenset({"description", "label", "note", "install_note"})
_GPUS = frozenset({"h100", "h200", "hopper", "nvidia", "default"})


def models(directory: Path | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and YAML of every model, all values as texts, from a catalogue or from the facts kept here."""
    if directory is None:
        for line in FILE.read_text(encoding="utf-8").splitlines():
            yield from json.loads(line).items()
        return
    for path in sorted(directory.glob("models/*/*.yaml")):
        yield f"{path.parent.name}/{path.stem}", yaml_text.read(path, what="catalogue's", texts=True)


def of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of one model."""
    meta = {key: raw["meta"][key] for key in ("tasks", "hardware") if key in raw["meta"]}
    made: dict[str, Any] = {"meta": meta, "model": {key: raw["model"][key] for key in _MODEL if key in raw["model"]}}
    if raw.get("omni"):  # refused as a whole
        variants = {name: {"precision": variant["precision"]} for name, variant in raw["variants"].items()}
        return made | {"omni": "true", "compatible_strategies": raw["compatible_strategies"], "variants": variants}
    overrides = {name: block for name, block in (raw.get("strategy_overrides") or {}).items() if name != "pd_cluster"}
    rest = {key: raw[key] for key in (*_TOP, "dependencies", "features", "variants") if raw.get(key)}
    return made | {key: _without_prose(value, key) for key, value in {**rest, "strategy_overrides": overrides}.items()}


def _without_prose(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        others = _GPUS if key in ("hardware_overrides", "hardware") else value.keys()
        kept = [name for name in value if name in others and name not in _PROSE]
        return {name: _without_prose(value[name], name) for name in kept}
    if key == "command":
        return re.sub(r"(--(extra-)?index-url) \S+", r"\1 elsewhere", value)
    return [_without_prose(each, "") for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    for name, raw in models(Path(sys.argv[1])):
        print(json.dumps({name: of(raw)}, separators=(",", ":")))
