"""The failure bundle: what one host knew when its generation failed, for `muster logs --failure`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from . import stack_dumps
from .children import RunningChild
from .config import Config
from .member_core import MemberState
from .messages import Failure
from .short_commands import describe_exit, run_command

COMMAND_TIMEOUT = 5.0
"""Seconds for each command run on the host: the restart waits for them."""
UNIT = "ActiveState,SubState,Result,NRestarts,MemoryCurrent,MemoryPeak,TasksCurrent,CPUUsageNSec,InvocationID"


async def collect(
    config: Config,
    state: MemberState,
    reason: str,
    failure: Failure | None,
    children: Sequence[RunningChild],
    processes: Sequence[str],
    kernel: Sequence[str],
) -> dict[str, Any]:
    """`processes` as they were before the kill. `wall` is for people only: no decision reads it."""
    properties = ["systemctl", "show", config.unit, f"--property={UNIT}"]
    outputs: dict[str, str] = {"unit": (await run_command(properties, COMMAND_TIMEOUT))[1]}
    if config.checks.gpus:
        outputs["gpu_processes"] = (await run_command(config.checks.apps_command, COMMAND_TIMEOUT))[1]
        query = ["nvidia-smi", "--query-gpu=index,name,memory.used,memory.total", "--format=csv,noheader"]
        outputs["gpu_memory"] = (await run_command(query, COMMAND_TIMEOUT))[1]
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
                "state": "running" if running.process.returncode is None else describe_exit(running.process.returncode),
                "lines": running.lines(),
            }
            for running in children
        ],
        "tree": list(processes),
        "kernel": list(kernel),
        "stacks": stack_dumps.read(config.stack_directory) if config.stack_directory else {},
        **outputs,
    }


def file_name(generation: str) -> str:
    """A file name that sorts by age, with the wall clock first so that people can find the hour."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{generation or 'none'}"
