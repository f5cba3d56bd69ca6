"""What differs between two recipes, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from muster.errors import shown
from muster.spec.recipe import Recipe


def lines(old: Recipe, new: Recipe) -> Iterator[str]:
    """Yield one line for each value that differs, by its place; where recipes come from is left out."""
    before, after = ({**_flat(each.model_dump(exclude={"source"}, exclude_defaults=True))} for each in (old, new))
    for place in sorted({*before, *after}):
        if before.get(place) != after.get(place):
            was, now = (shown(str(values[place])) if place in values else "not there" for values in (before, after))
            yield f"{place}: {was}, now {now}"


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {place: value}
    found: dict[str, Any] = {}
    for name, each in value.items():
        found |= _flat(each, f"{place}.{name}" if place else str(name))
    return found
