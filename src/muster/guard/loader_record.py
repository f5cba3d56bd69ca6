"""Reads what was measured of the loaders on this host, for the report to the head.

Root measures, and writes the record beside the weights. Without one, or with one that does not count, this host has
measured nothing, and the group loads as vLLM does by default.
"""

from __future__ import annotations

import os

from . import loader_choice
from .bounded_file import read_json
from .config import RECORD, Config

LIMIT = 16 * 1024
"""Bytes of a record."""


def loads(config: Config, cached_share: float = 0.0) -> str:
    """How long each loader is expected to take on this host, as it travels; empty without a measurement that counts.

    `cached_share`: of the weights, what the page cache holds, as it was last seen; the guard opens none of the files.
    """
    loading = config.loading
    if loading is None:
        return ""
    weights = loading.record[: -len(RECORD)]
    try:
        device, told = os.stat(weights).st_dev, read_json(loading.record, LIMIT)
        record = loader_choice.measured(told, config.group.engine, loading.ranks, device)
        return loader_choice.to_wire(loader_choice.seconds_of(record, loading, cached_share))
    except (OSError, ValueError):
        return ""
