"""How fast each of vLLM's loaders got a revision's weights onto this host's GPUs; `loader_rates` measures it.

The guard reads this record at each start. Root writes it, beside the revision's directory.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from muster.on_host import kept_rate, whole_files

SUFFIX = ".loaders.json"
_LIMIT = 16 << 10
_MOST = 8
_NAME = re.compile(r"[a-z][a-z_-]{0,39}")


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Return {loaders: what `of` returns of the request's `directory`}."""
    return {"loaders": of(request["directory"])}


def path(directory: str) -> str:
    """Return where the record of a revision is."""
    return directory.rstrip("/") + SUFFIX


def of(directory: str) -> dict[str, Any] | None:
    """Return {engine, ranks, age: seconds, loaders: name -> {rate: bytes a second, peak: bytes}}, or None.

    Args:
        directory: of the revision.
    """
    kept = whole_files.read_object(path(directory), _LIMIT)
    at, loaders = kept_rate.number(kept.get("at")), kept.get("loaders")
    age = int(time.time()) - at
    if not at or age < 0 or kept.get("device") != kept_rate.device_of(directory) or not isinstance(loaders, dict):
        return None  # also where the clock was set back, or the files were moved to another disk
    read = list(loaders.items())[:_MOST]
    found = {name: rate for name, each in read if _NAME.fullmatch(name) and (rate := figures(each))}
    words = [kept.get(name) for name in ("engine", "ranks")]
    if not found or not all(isinstance(word, str) and len(word) <= 200 and word.isprintable() for word in words):
        return None
    return {"engine": words[0], "ranks": words[1], "age": age, "loaders": found}


def is_fresh(kept: Mapping[str, Any] | None, engines: Sequence[str], ranks: str) -> bool:
    """Whether a measurement stands for one of these releases, and ranks that load so."""
    if kept is None or kept["age"] > kept_rate.MAX_AGE:
        return False
    return kept["engine"] in engines and kept["ranks"] == ranks


def keep(directory: str, engine: str, ranks: str, loaders: Mapping[str, Mapping[str, int]]) -> None:
    """Keep a measurement, with the date.

    Args:
        directory: of the revision.
        engine: the release that was measured.
        ranks: how it loads.
        loaders: of those that loaded: what `figures` made of them.

    Raises:
        OSError: a full disk, or a directory that is gone.
    """
    record = {
        "engine": engine,
        "ranks": ranks,
        "device": kept_rate.device_of(directory),
        "at": int(time.time()),
        "loaders": {name: dict(each) for name, each in loaders.items()},
    }
    whole_files.write_whole(path(directory), json.dumps(record).encode() + b"\n")


def figures(value: Any) -> dict[str, int] | None:
    """Return one loader's figures; None for anything else: the engine's packages gave them."""
    if not isinstance(value, dict) or type(value.get("peak")) is not int or value["peak"] < 0:
        return None
    rate = kept_rate.number(value.get("rate"))
    return {"rate": rate, "peak": min(value["peak"], 10**13)} if rate else None
