"""Which of vLLM's loaders may read a group's weights, and what was measured of them, in words. Pure.

Hosts measure (`muster.on_host.loader_rates`), the head chooses at each start (`muster.guard.loader_choice`); the plan
says what may be chosen, and how long each is expected to take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from muster.guard import loader_choice
from muster.guard.config import RECORD
from muster.guard.group_settings import Loading
from muster.on_host.in_words import duration
from muster.plan import cold_load, gpu_memory, load_ranks
from muster.plan.cold_load import ColdLoad, Rate
from muster.plan.gpu_memory import Memory
from muster.plan.layout import Layout
from muster.plan.load_ranks import LoadRanks
from muster.spec.hardware import GIB, Gpu
from muster.spec.listing import Listing
from muster.spec.settings import Settings
from muster.spec.shape import Shape

Kept = Mapping[str, Any]
"""What `muster.on_host.kept_loaders.of` returns."""

NAMES = ("instanttensor", "fastsafetensors", "runai_streamer")
"""Loaders besides vLLM's own, as `--load-format` has them. The first two come with vLLM's wheel for CUDA."""
LEAST = 8 * GIB
"""Bytes of weights below which a minute of measuring is not worth its seconds."""
MARGIN = 2 * GIB
"""GPU memory that stays free of what a loader takes: contexts, and kernels that are loaded meanwhile. An allowance."""
_DECIDED = ("load-format", "safetensors-load-strategy", "model-loader-extra-config")
"""Flags by which the user or the recipe decides how weights are loaded."""


@dataclass(frozen=True)
class Choice:
    """What hosts measure and the head chooses from.

    Args:
        loading: as the guards get it.
        ranks: of each host, as a loader sees them.
        engine: how the ids of its releases begin, whatever their CUDA variant.
    """

    loading: Loading
    ranks: LoadRanks
    engine: str

    def line(self, kept: Kept) -> str:
        """Return what was just measured on a host: `auto 1.4 GB/s (5.7 from the page cache), instanttensor 3.1`."""
        rates = {name: each["rate"] / 1e9 for name, each in kept["loaders"].items()}
        cached = rates.pop(loader_choice.AUTO_CACHED, None)
        parts = list[str]()
        for name, rate in rates.items():
            unit = "" if parts else " GB/s"
            warm = f" ({cached:.2g} from the page cache)" if name == loader_choice.AUTO and cached else ""
            parts.append(f"{name} {rate:.2g}{unit}{warm}")
        return f"loads weights by {', '.join(parts)}"

    def expected(self, kept: Mapping[str, Kept | None]) -> str:
        """Return what a start from cold disks takes by the loader that it would take; empty where nothing is known.

        Args:
            kept: by host, every host of the group.
        """
        if len({each["engine"] for each in kept.values() if each is not None}) != 1:
            return ""
        wires = {host: self.wire(each) for host, each in kept.items()}
        times = loader_choice.slowest(wires) if wires else {}
        if loader_choice.AUTO not in times:
            return ""
        name = loader_choice.choose(wires, (), self.loading.names) or loader_choice.AUTO
        slower = sorted((each for each in times if each != name), key=times.__getitem__)
        others = [f"{each} {duration(times[each])}" for each in slower]
        age = max(each["age"] for each in kept.values() if each is not None)
        beside = f"; {', '.join(others)}" if others else ""
        return f"a cold load by {name}: {duration(times[name])} expected{beside} (measured {duration(age)} ago)"

    def seconds(self, kept: Kept | None, loader: str) -> float | None:
        """Return how long a host is expected to load from its cold disk; None where that was not measured.

        Args:
            kept: of the host.
            loader: empty for vLLM's own.
        """
        return loader_choice.from_wire(self.wire(kept)).get(loader or loader_choice.AUTO)

    def wire(self, kept: Kept | None) -> str:
        """Return the times of a host as its guard tells them to the head, nothing being in the page cache."""
        if kept is None or kept["ranks"] != self.ranks.key or not self._runs(kept["engine"]):
            return ""
        measured = {name: loader_choice.Measured(each["rate"], each["peak"]) for name, each in kept["loaders"].items()}
        return loader_choice.to_wire(loader_choice.seconds_of(measured, self.loading, 0.0))

    def _runs(self, release: str) -> bool:
        """Whether a release is one of this group's: what was measured of an older one, guards take for nothing."""
        begins = self.engine.strip("/").replace("/", "-")
        return release == begins or release.startswith((f"{begins}+", f"{begins}-"))


def of(
    settings: Settings,
    shape: Shape | None,
    layout: Layout,
    gpu: Gpu,
    memory: Memory | None,
    flags: Mapping[str, Any],
    draft: Listing | None = None,
) -> Choice | None:
    """Return what a group's weights may be loaded by; None where there is nothing to choose.

    Args:
        settings: of the group.
        shape: of the model, where it is known.
        layout: parallel sizes.
        gpu: of the hosts.
        memory: the table of one GPU, where it is known.
        flags: of the engine: name without dashes -> value.
        draft: the pin of the draft model, which each host reads besides.
    """
    model = settings.model or ""
    if settings.weights.loader != "measured" or settings.supervisor != "guard" or not model.startswith("/"):
        return None
    if shape is None or any(flag.partition(".")[0] in _DECIDED for flag in flags):
        return None
    whole = gpu_memory.weight_bytes(shape)
    if whole < LEAST:
        return None
    room = gpu.memory_bytes - (memory.used if memory is not None else 0) - MARGIN
    # Who maps the files reads the layers of its own pipeline stages alone.
    stages = max(1, layout.pp // layout.engine_hosts) if layout.spans_hosts else layout.pp
    beside = draft.weight_bytes if draft is not None else 0
    filtered = flags.get(load_ranks.FILTER, False) is not False
    ranks = load_ranks.of(shape, layout, filtered=filtered, kept=settings.keep_weights)
    loading = Loading(
        record=model.rstrip("/") + RECORD,
        mapped=whole * stages // layout.pp + beside,
        whole=whole + beside,
        room=max(0, room),
        names=NAMES,
        process="weights" if settings.keep_weights else "vllm",
        ranks=ranks.key,
    )
    return Choice(loading, ranks, settings.engine_path or f"vllm-{settings.vllm_version}")


def as_json(loading: Loading) -> dict[str, Any]:
    """Return the key `loading` of guard.json."""
    return asdict(loading)


def cold_load_line(
    choice: Choice | None,
    load: ColdLoad | None,
    rates: Mapping[str, Rate | None],
    kept: Mapping[str, Kept | None],
) -> str:
    """Return what a load from cold disks takes, by the loaders where those were measured, else by the disks; or empty.

    Args:
        choice, load: of the plan, where one can be made.
        rates, kept: host -> what was measured of its disk, and of its loaders.
    """
    return (choice.expected(kept) if choice is not None else "") or cold_load.slowest(load, rates)
