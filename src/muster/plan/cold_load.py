"""How long a host takes to read its weights from a cold disk: bytes that its ranks read, over its rate. Pure.

It is the least for vLLM's default loader, which maps the files, on a local disk, with nothing of them in the page
cache: the thread that reads also copies, and a disk may give more for seconds than for long (docs/weights.md).
Weights that the cache holds load in less time; a loader of another kind (`loaders`), or a file system of a network, for
which vLLM fetches ahead, takes another time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from muster.on_host.in_words import duration
from muster.plan import gpu_memory
from muster.plan.layout import Layout
from muster.spec.shape import Shape

Rate = Mapping[str, Any]
"""What `muster.on_host.kept_rate.of` returns."""

_DEFAULTS = {
    "load-format": ("auto", "hf", "safetensors"),
    "safetensors-load-strategy": ("lazy",),
    "model-loader-extra-config": (),
}
"""Flag -> values with which the files are mapped."""


@dataclass(frozen=True)
class ColdLoad:
    """What a host of the group reads.

    Args:
        share: of all weights, what the ranks of one host read together; of the host that reads most.
        streams: ranks of a host that read different bytes: several that read the same wait for one disk read.
        gpus: of a host.
        bytes: that they read of the model; 0 where the size of the weights is not known.
        draft: bytes of a draft model, which every host reads whole.
        other: why the time of such a load is not this one; empty where it holds.
    """

    share: float
    streams: int
    gpus: int
    bytes: int = 0
    draft: int = 0
    other: str = ""

    def seconds(self, rate: Rate | None) -> float | None:
        """Return how long the load takes at least from a cold disk; None where it is not known.

        Args:
            rate: of the host's disk.
        """
        if rate is None or not self.bytes or self.other or rate.get("network"):
            return None
        return (self.bytes + self.draft) / self.rate(rate)

    def line(self, rate: Rate) -> str:
        """Return the arithmetic: `disk 6.2 GB/s, 512 GB for 8 GPUs: at least 83 s`.

        Args:
            rate: of the host's disk.
        """
        disk = f"{rate.get('network') or 'disk'} {self.rate(rate) / 1e9:.2g} GB/s"
        seconds = self.seconds(rate)
        if seconds is None:
            ahead = "vLLM fetches such files ahead with many threads" if rate.get("network") else ""
            return f"{disk}; {self.other or ahead or 'how much is read is not known'}"
        gpus = f"{self.gpus} GPU{'s' * (self.gpus > 1)}"
        return f"{disk}, {(self.bytes + self.draft) / 1e9:.3g} GB for {gpus}: at least {seconds:.0f} s"

    def rate(self, rate: Rate) -> float:
        """Return the bytes a second that the ranks of a host get together."""
        return float(rate["one"] if self.streams == 1 else rate["all"])


def of(shape: Shape | None, layout: Layout, flags: Mapping[str, Any], *, draft: int = 0) -> ColdLoad:
    """Return what each host of a group reads in a cold load.

    Args:
        shape: of the model, where it is known.
        layout: parallel sizes.
        flags: of the engine: name without dashes -> value.
        draft: bytes of the draft model's weights.

    Of tensor parallel ranks each copies its slice, but slices of rows lie in every page: what spans hosts by TP counts
    whole. Pipeline stages and, with expert parallelism, experts of other hosts are not read.
    """
    share = 1.0
    stages = max(1, layout.pp // layout.engine_hosts)
    if layout.spans_hosts and layout.pp > 1:
        share = stages / layout.pp
        if shape is not None:
            layers = shape.num_hidden_layers
            share = min(1.0, ceil(layers / layout.pp) * stages / layers)
    hosts = max(1, layout.engine_hosts // layout.pp) if layout.spans_hosts else layout.dp // layout.dp_local
    if layout.expert_parallel and shape is not None and hosts > 1:
        experts = gpu_memory.experts_share(shape)
        share *= experts / hosts + 1 - experts
    streams = layout.host_gpus if layout.expert_parallel else layout.host_gpus // layout.dp_local
    whole = gpu_memory.weight_bytes(shape) if shape is not None else 0
    return ColdLoad(share, streams, layout.host_gpus, int(whole * share), draft, _other(flags))


def _other(flags: Mapping[str, Any]) -> str:
    if flags.get("load-format") == "dummy":
        return "no weights are loaded (--load-format dummy)"
    for flag, usual in _DEFAULTS.items():
        if flag in flags and str(flags[flag]) not in usual:
            return f"--{flag} {flags[flag]} reads them in another way"
    return ""


_UNKNOWN = ColdLoad(1.0, 2, 1)


def measured(load: ColdLoad | None, rate: Rate) -> str:
    """Return what was just measured of a host's disk, and what a load from it would take.

    Args:
        load: of the group; None where nothing is planned.
        rate: of the host.
    """
    readers = f" with {rate['readers']} readers, {rate['one'] / 1e9:.2g} with one" if rate["readers"] > 1 else ""
    expected = f"; a cold load: {load.line(rate)}" if load is not None else ""
    return f"reads weights at {rate['all'] / 1e9:.2g} GB/s{readers}{expected}"


def slowest(load: ColdLoad | None, rates: Mapping[str, Rate | None]) -> str:
    """Return the expected load of a group in one line; empty where no host has a measurement.

    Args:
        load: of the group; None where nothing is planned.
        rates: by host.
    """
    known = {host: rate for host, rate in rates.items() if rate is not None}
    if not known:
        return ""
    load = load or _UNKNOWN
    host = min(known, key=lambda name: load.rate(known[name]))
    lacking = [name for name in rates if name not in known]
    notes = [f"{host} is the slowest of {len(known)}" if len(known) > 1 else host]
    notes += [f"measured {duration(known[host]['age'])} ago"]
    notes += [f"not measured: {', '.join(lacking)}"] if lacking else []
    return f"a cold load: {load.line(known[host])} ({'; '.join(notes)})"
