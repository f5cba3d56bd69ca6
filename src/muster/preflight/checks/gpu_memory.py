"""Whether the plan's bytes fit into the memory of the actual GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from muster.on_host.in_words import size
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict, fail, ok, warn

MIB = 1024**2


def check(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    """Judge the smallest GPU of the host."""
    if needs.gpu_bytes is None or isinstance(report.gpus, Unreadable):
        return
    sizes = [gpu.memory_mib for gpu in report.gpus if gpu.memory_mib is not None]
    if not sizes:
        return
    budget = min(sizes) * MIB * needs.utilization
    found = f"{size(budget)} of {size(min(sizes) * MIB)} at utilization {needs.utilization:g}"
    wanted = f"{size(needs.gpu_bytes)} a GPU"
    if needs.gpu_bytes <= budget:
        yield ok("memory.fit", found, wanted)
        return
    fix = "take another strategy or more GPUs; the plan's memory table has the arithmetic"
    judge = warn if needs.oversubscribe else fail
    yield judge("memory.fit", found, wanted, fix)
