"""Hosts for tests: equal ones, named and numbered as the inventories do."""

from __future__ import annotations

from functools import cache

from muster.plan.flags_in_argv import values_of
from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.spec import recipe
from muster.spec.host import HostSpec
from muster.spec.settings import Settings

_recipe = cache(recipe.load)


def hosts(count: int, gpu: str = "H800", gpus: int = 8) -> list[HostSpec]:
    """Return `count` equal hosts with addresses reserved for documentation."""
    return [
        HostSpec(f"{gpu.lower()}-{i}", f"198.51.{100 + i // 250}.{1 + i % 250}", "eth1", gpu, gpus)
        for i in range(count)
    ]


def plan(name: str, count: int, gpu: str, gpus: int = 8, **settings: object) -> Plan:
    """Return the plan of a bundled recipe on equal hosts."""
    return build_plan(_recipe(name), hosts(count, gpu, gpus), Settings(**settings))  # type: ignore[arg-type]


def plain(name: str, count: int, gpu: str, gpus: int = 8, **settings: object) -> Plan:
    """Return a plan with one plain unit a process: more layers and files than the guard's single unit has."""
    return plan(name, count, gpu, gpus, supervisor="systemd", **settings)


def engine_flags(plan: Plan, host: str | None = None) -> dict[str, str]:
    """Return flag -> value of vLLM's command line on a host; on the head if none is named."""
    processes = (plan.hosts[host] if host else plan.head).processes
    return values_of(next(process for process in processes if process.name == "vllm").argv)
