"""The failure bundle: what one host knew when its generation ended, for `muster logs --failure`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from .children import Running, how, output
from .config import Config
from .member_core import MemberState
from .messages import Failure

LOOK = 5.0
"""Seconds for each look at the host: the group waits for none of them longer."""
UNIT = "ActiveState,SubState,Result,NRestarts,MemoryCurrent,MemoryPeak,TasksCurrent,CPUUsageNSec,InvocationID"


async def bundle(
    config: Config,
    state: MemberState,
    reason: str,
    failure: Failure | None,
    children: Sequence[Running],
    processes: Sequence[str],
    kernel: Sequence[str],
) -> dict[str, Any]:
    """`processes` as they were before the kill. `wall` is for people to sort by: no decision ever reads it."""
    looks: dict[str, str] = {"unit": (await output(["systemctl", "show", config.unit, f"--property={UNIT}"], LOOK))[1]}
    if config.checks.gpus:
        looks["gpu_processes"] = (await output(config.checks.apps_command, LOOK))[1]
        query = ["nvidia-smi", "--query-gpu=index,name,memory.used,memory.total", "--format=csv,noheader"]
        looks["gpu_memory"] = (await output(query, LOOK))[1]
    return {
        "version": 1,
        "wall": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "group": config.group.name,
        "recipe": config.recipe,
        "digest": config.group.digest,
        "engine": config.group.engine,
        "host": config.host,
        "generation": state.generation,
        "instance": state.instance,
        "reason": reason,
        "first_here": None if failure is None else {"reason": failure.reason, "process": failure.process},
        "processes": [
            {
                "name": running.child.name,
                "argv": list(running.argv),
                "pid": running.process.pid,
                "state": "running" if running.process.returncode is None else how(running.process.returncode),
                "lines": running.lines(),
            }
            for running in children
        ],
        "tree": list(processes),
        "kernel": list(kernel),
        **looks,
    }


def name(generation: str) -> str:
    """A file name that sorts by age: the wall clock first, so that a person finds the hour."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{generation or 'none'}"
