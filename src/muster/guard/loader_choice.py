"""Which loader an engine reads its weights with, chosen by what was measured on its hosts. Pure.

The loaders of one engine pass tensors to each other by NCCL collectives while they load, so all hosts take the same
one: the head chooses, at the moment it says `run`, and what hosts measure later counts from the next start on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .group_settings import Loading

AUTO = "auto"
"""vLLM's own choice, which maps the files; what runs where none other is chosen."""
AUTO_CACHED = "auto-cached"
"""The same, of files that are in the page cache."""
GAIN = 1.25
"""How many times faster than `auto` a loader must be: measurements of the same disk scatter, and `auto` is what
everybody runs, so a loader that is no clear gain is not worth being another one."""
NEWS = 0.05
"""A time that changed by less is not told anew: what the page cache holds changes all the time."""
LIMIT = 256
"""Characters of a host's times on their way to the head."""

LEAST_PATIENCE, PATIENCE = 900.0, 10.0
"""Seconds, and how many times the expected load, that a start with a chosen loader may take."""

_WORD = re.compile(r"([a-z][a-z0-9_]{0,31})=(\d{1,9}(?:\.\d{1,9})?(?:e[+-]\d\d)?)")


@dataclass(frozen=True)
class Measured:
    """One loader on one host."""

    rate: int
    """Bytes of checkpoint files a second, of the whole host."""
    peak: int
    """Bytes of GPU memory that loading takes beyond the weights."""


def measured(data: Mapping[str, Any], engine: str, ranks: str, device: int) -> dict[str, Measured]:
    """What a host's record says of its loaders; nothing where it is of another engine, layout or disk, or odd."""
    loaders = data.get("loaders")
    if (
        (data.get("engine"), data.get("ranks")) != (engine, ranks)
        or type(data.get("device")) is not int
        or data["device"] != device
    ):
        return {}
    if not isinstance(loaders, Mapping):
        return {}
    found = {}
    for name, each in loaders.items():
        rate, peak = (each.get("rate"), each.get("peak")) if isinstance(each, Mapping) else (None, None)
        if type(rate) is not int or type(peak) is not int or not (0 < rate < 2**53 and 0 <= peak < 2**53):
            return {}
        found[str(name)] = Measured(rate, peak)
    return found


def seconds_of(record: Mapping[str, Measured], loading: Loading, cached_share: float) -> dict[str, float]:
    """The seconds that each loader is expected to take on this host; those whose peak does not fit are left out.

    `auto` is never left out: it runs where nothing else is chosen. It maps files, so what the page cache holds
    (`cached_share` of them, 0 to 1) is there at once; the others read around the cache.
    """
    found = {}
    if AUTO in record:
        disk = record[AUTO].rate
        cache = record.get(AUTO_CACHED, record[AUTO]).rate
        share = min(max(cached_share, 0.0), 1.0)
        found[AUTO] = loading.mapped * (share / cache + (1 - share) / disk)
    for name in loading.names:
        if name in record and record[name].peak <= loading.room:
            found[name] = loading.whole / record[name].rate
    return found


def to_wire(seconds: Mapping[str, float]) -> str:
    """Times as they travel in a report: `auto=91.2 instanttensor=24`, to three digits."""
    return " ".join(f"{name}={each:.3g}" for name, each in sorted(seconds.items()))


def from_wire(text: str) -> dict[str, float]:
    """The times that `to_wire` wrote; nothing where the text is anything else."""
    found = {}
    for word in text.split(" ") if len(text) <= LIMIT else ():
        match = _WORD.fullmatch(word)
        if match is None:
            return {}
        found[match[1]] = float(match[2])
    return found if to_wire(found) == text else {}


def newest(told: str, found: str) -> str:
    """The times to tell the head: those just found, where they differ from those told before by enough to matter."""
    old, new = from_wire(told), from_wire(found)
    same = set(old) == set(new) and all(abs(new[name] - old[name]) <= NEWS * old[name] for name in old)
    return told if same else found


def slowest(by_host: Mapping[str, str]) -> dict[str, float]:
    """The seconds of each loader on its slowest host, of those loaders that every host has measured."""
    times = [from_wire(text) for text in by_host.values()]
    return {name: max(each[name] for each in times) for name in times[0] if all(name in each for each in times)}


def choose(by_host: Mapping[str, str], unfit: Sequence[str], known: Sequence[str]) -> str:
    """The loader of `known` whose slowest host is fastest, or empty for vLLM's own default.

    Args:
        by_host: host -> its times, as they travel.
        unfit: loaders with which a start failed.
        known: loaders that the plan allows.
    """
    times = slowest(by_host) if by_host else {}
    fit = [(times[name], name) for name in known if name in times and name not in unfit]
    if not fit or AUTO not in times:
        return ""
    best, name = min(fit)
    return name if best * GAIN <= times[AUTO] else ""


def patience(by_host: Mapping[str, str], loader: str) -> float:
    """Seconds after which a start with a chosen loader has failed: such loaders can hang where `auto` does not.

    Much longer than loads take, so that what is slow for another reason is not blamed on the loader.
    """
    return max(LEAST_PATIENCE, PATIENCE * slowest(by_host).get(loader, 0.0)) if loader else float("inf")


def words(argv: Sequence[str], loader: str) -> list[str]:
    """An engine's command line with the loader in it; unchanged where none is chosen."""
    return [*argv, "--load-format", loader] if loader else list(argv)
