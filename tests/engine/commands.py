"""Every command line that recipes and vLLM's catalogue give, each with words that say which it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from muster.spec import recipe
from muster.spec.hardware import GPUS
from tests.catalogue import facts
from tests.catalogue.verdict import verdicts
from tests.sample_plans import plan

Named = tuple[str, tuple[str, ...]]
LAYOUTS = str(Path(__file__).parents[1] / "recipes" / "qwen3-235b.yaml")


def planned(name: str, gpus: Iterable[str], version: str) -> list[Named]:
    """Return every command of a recipe's strategies for a version of vLLM."""
    cases = []
    for strategy, told in recipe.load(name).strategies.items():
        for gpu in gpus:
            for executor in ("ray", "mp"):
                p = plan(
                    name,
                    told.hosts or 2,
                    gpu,
                    strategy=strategy,
                    executor=executor,
                    vllm_version=version,
                    allow_oversubscription=True,
                )
                for host in p.hosts.values():
                    case = f"{name} {strategy} {gpu} {executor} {host.name}"
                    cases += [(case, q.argv) for q in host.processes if q.name == "vllm"]
    return cases


def shipped(version: str) -> list[Named]:
    """Return the commands of the recipes muster came with, on all hardware."""
    names = [name for name in recipe.names() if not recipe.load(name).source]
    return [case for name in names for case in planned(name, GPUS, version)]


def imported(version: str) -> list[Named]:
    """Return the commands of imported recipes and of one with many layouts, on H200."""
    names = [name for name in recipe.names() if recipe.load(name).source]
    return [case for name in (LAYOUTS, *names) for case in planned(name, ["H200"], version)]


def catalogue() -> list[Named]:
    """Return the commands of vLLM's catalogue on one and two hosts of H100 and H200, each once."""
    where = {"H100": (1, 2), "H200": (1, 2)}
    cases = {
        argv: f"{name} {each.cell.variant} {each.cell.strategy}"
        for name, raw in facts.models()
        for each in verdicts(name, raw, where)
        for argv in each.argvs
    }
    return [(case, argv) for argv, case in cases.items()]
