"""A model's own config.json -> a recipe to begin with: nothing in it is guessed, what is not known is said.

The file is a stranger's text: whatever comes out passes the types of a recipe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from muster.errors import Refusal, shown
from muster.spec import model_config
from muster.spec.shape import Shape

FLOOR = "0.32.0"
"""The oldest vLLM without the holes that 0.30 to 0.32 closed: a config.json names no version."""
_INSIDE = ("text_config", "llm_config", "language_config")
_LONGEST = ("max_position_embeddings", "model_max_length", "max_sequence_length", "seq_length", "n_positions")


def recipe_of(model: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a recipe as data for its YAML file, and in words what config.json says and does not say.

    Args:
        model: id at the hub.
        config: what its config.json holds.

    Raises:
        Refusal: it names no context length.
    """
    shape, notes = _shape(config)
    experts = shape is not None and shape.n_routed_experts > 0
    raw: dict[str, Any] = {
        "name": re.sub(r"[^a-z0-9]+", "-", model.split("/")[-1].lower()).strip("-")[:40].strip("-"),
        "title": model.split("/")[-1],
        "model": model,
        "min_vllm": FLOOR,
        "context": _context(config),
        **({} if shape is None else {"shape": shape.model_dump(exclude_defaults=True)}),
        **({"flags": {"trust-remote-code": True}} if config.get("auto_map") else {}),
        "strategies": _strategies(experts=experts),
        "defaults": {"any": "tp"},
    }
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else "not named"
    said = [f"architecture {shown(str(first))}, context {raw['context']:,} tokens"]
    if config.get("auto_map"):
        said.append("it brings code of its own (auto_map): pin it before it is served")
    said += [*notes, "parsers of tool calls and reasoning are not known from config.json: add features for them"]
    return raw, said


def _shape(config: Mapping[str, Any]) -> tuple[Shape | None, list[str]]:
    try:
        shape = model_config.shape_of(config)
    except model_config.NotUnderstood as problem:
        return None, [f"no shape: {problem}; `muster pin` may know more, else vLLM measures the cache"]
    experts = f", {shape.n_routed_experts} experts" if shape.n_routed_experts else ""
    bits = (
        f"{shape.linear_bits:g} bits"
        if shape.linear_bits == shape.expert_bits or not experts
        else (f"{shape.expert_bits:g} bits in experts, {shape.linear_bits:g} in other layers")
    )
    return shape, [f"{shape.num_hidden_layers} layers{experts}, {bits}"]


def _context(config: Mapping[str, Any]) -> int:
    inside: Mapping[str, Any] = next((config[name] for name in _INSIDE if isinstance(config.get(name), Mapping)), {})
    for holder in (inside, config):
        for name in _LONGEST:
            value = holder.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31:
                return value
    raise Refusal(
        "config.json names no context length",
        needed=f"one of {', '.join(_LONGEST)}",
        fix="write the recipe by hand (docs/recipes.md), or import it from the catalogue",
    )


def _strategies(*, experts: bool) -> dict[str, Any]:
    dense = {
        "tp": {"about": "Tensor parallel on one host.", "hosts": 1, "sizes": {"tp": "host"}},
        "tp-pp": {
            "about": "Tensor parallel on each host, a pipeline over hosts.",
            "min_hosts": 2,
            "sizes": {"tp": "host", "pp": "hosts"},
            "executor": "mp",
        },
    }
    spread = {
        "tep": {
            "about": "Tensor parallel on one host, experts whole.",
            "hosts": 1,
            "sizes": {"tp": "host", "ep": True},
        },
        "dp-ep": {
            "about": "A data parallel rank on each GPU, experts spread.",
            "sizes": {"tp": 1, "dp": "all", "ep": True},
        },
    }
    return dense | spread if experts else dense
