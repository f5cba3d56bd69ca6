"""Values of vLLM's recipe catalogue, every one a stranger's, read as what they should be: else empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Raw = dict[str, Any]

VENDOR, GENERATION = "nvidia", "hopper"
LIKE: Mapping[str, str | None] = {"H100": "h100", "H800": "h100", "H200": "h200", "H20-3e": "h200", "H20": None}
"""GPU product -> whose settings it takes: the catalogue has no word on H800, H20 and H20-3e."""
NO_WORD: Mapping[str, str] = {
    product: f"{product} (taken as {like.upper() if like else 'any Hopper'})"
    for product, like in LIKE.items()
    if like is None or like != product.lower()
}
"""Product that the catalogue has no word on -> that, and what it gets instead."""


def silence() -> str:
    """Return in words which products the catalogue has no word on, and what they get."""
    return f"The catalogue has no word on {', '.join(NO_WORD.values())}"


def mapping(value: object) -> Raw:
    """Return a mapping with names as texts."""
    return {str(key): each for key, each in value.items()} if isinstance(value, Mapping) else {}


def texts(value: object) -> list[str]:
    """Return a list of texts."""
    return [text(each) for each in value] if isinstance(value, (list, tuple)) else []


def text(value: object) -> str:
    """Return a text without blanks around it."""
    return value.strip() if isinstance(value, str) else ""


def number(value: object) -> int:
    """Return a whole number of at most 11 digits; 0 for anything else."""
    digits = text(value)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else 0


def kept(**values: Any) -> Raw:
    """Return what is not empty."""
    return {name: value for name, value in values.items() if value}


def general(holder: Raw) -> Raw:
    """Return the block of `hardware_overrides` for Hopper, or for all of the vendor's GPUs."""
    blocks = mapping(holder.get("hardware_overrides"))
    return mapping(blocks.get(GENERATION) or blocks.get(VENDOR))


def exact(holder: Raw, product: str) -> Raw:
    """Return the block of `hardware_overrides` for one product."""
    return mapping(mapping(holder.get("hardware_overrides")).get(LIKE[product] or ""))


def keyed(by: object, product: str) -> Any:
    """Return the most exact word of a mapping by GPU, generation, vendor or `default`; of anything else, itself.

    Of a product that is no other's like, what all of the generation's GPUs have.
    """
    if not isinstance(by, Mapping):
        return by
    like = LIKE[product]
    if like is None and by.get("h100") == by.get("h200"):
        like = "h100"
    return next((by[key] for key in (like, GENERATION, VENDOR, "default") if key is not None and key in by), None)


def products(supported: list[str]) -> list[str]:
    """Return the products that a list of the catalogue's GPUs is for."""
    both = {"h100", "h200"} <= set(supported) or GENERATION in supported
    return [product for product, like in LIKE.items() if both or (like is not None and like in supported)]
