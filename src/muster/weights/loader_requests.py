"""Which hosts of a group are to measure vLLM's loaders, and what each is asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muster.hosts import programs
from muster.on_host import kept_loaders
from muster.plan.types import Plan
from muster.spec.inventory import Fleet

SECONDS = 120
"""For each loader: eight gigabytes and more from a slow disk."""


def of(
    fleet: Fleet, plans: Sequence[Plan], probes: Mapping[str, Mapping[str, Any]], directory: str, manifest: str
) -> dict[str, dict[str, Any]]:
    """Return host -> request of `muster.on_host.loader_rates`, of hosts whose loaders were not measured lately.

    Args:
        fleet: the group.
        plans: of every release that its hosts may have; none where none can be made.
        probes: host -> what it has of the weights, and measured of them.
        directory, manifest: of the revision, and digest of its pin.
    """
    choice = plans[0].loaders if plans else None
    if choice is None:
        return {}
    releases = [(plan.release.id, plan.release.path) for plan in plans]
    names = [name for name, _ in releases]
    common = {
        "directory": directory,
        "manifest": manifest,
        "engines": releases,
        "program": programs.source("measure_loaders"),
        "key": choice.ranks.key,
        "names": list(choice.loading.names),
        "env": {name: value for name, value in fleet.settings.extra_env.items() if name.startswith("NCCL_")},
    }
    return {
        spec.name: {
            **common,
            "gpus": list(spec.devices),
            "load": choice.ranks.request(node_rank=number, seconds=SECONDS),
        }
        for number, spec in enumerate(fleet.hosts)
        if spec.name in probes and not kept_loaders.is_fresh(probes[spec.name].get("loaders"), names, choice.ranks.key)
    }
