"""Reads what was measured of the loaders on this host, for the report to the head.

Root measures, and writes the record beside the weights. Without one, or with one that does not count, this host has
measured nothing, and the group loads as vLLM does by default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from . import loader_choice
from .bounded_file import read_json
from .config import RECORD, Config

LIMIT = 16 * 1024
"""Bytes of a record."""


def none_cached(paths: Sequence[str]) -> float:
    """The share of some files that the page cache holds, where nobody looks."""
    return 0.0


def loads(config: Config, cached_share: Callable[[Sequence[str]], float] = none_cached) -> str:
    """How long each loader is expected to take on this host, as it travels; empty without a measurement that counts.

    `cached_share`: files -> the share of their bytes that the page cache holds.
    """
    loading = config.loading
    if loading is None:
        return ""
    weights = loading.record[: -len(RECORD)]
    try:
        record = loader_choice.measured(read_json(loading.record, LIMIT), config.group.engine, os.stat(weights).st_dev)
        if not record:
            return ""
        with os.scandir(weights) as entries:
            files = sorted(entry.path for entry in entries if entry.name.endswith(".safetensors"))
        return loader_choice.to_wire(loader_choice.seconds_of(record, loading, cached_share(files)))
    except (OSError, ValueError):
        return ""
