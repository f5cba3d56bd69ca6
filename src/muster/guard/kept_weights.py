"""Weights that stay on the GPUs between two lives of the engine: what its guard and the daemons' guard must know.

`vllm preload` daemons hold the weights, under a guard of their own on each host; the engine maps them. The two guards
of a host agree by what both can see: the daemons' health port, and the processes of the other group. An engine starts
only where daemons serve its key; daemons start only where no engine maps what the last ones held, since the driver
keeps mapped memory and a second copy would not fit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable

from . import http
from .bounded_file import read_json
from .cgroup import GENERATION, environments
from .cgroup import state as process_state
from .group_settings import KeptFor, KeptWeights
from .restart_policy import STOPPED, from_wire

INTERVAL = 1.0
"""Seconds between two questions to the daemons' launcher."""
ASK_TIMEOUT = 10.0
SILENT = 6
"""Questions in a row without an answer: a busy launcher is late, one that is gone refuses."""
SOCKET = ".sock"
DRAFT = "_draft.sock"


def processes_of(group: str, proc: str = "/proc") -> list[int]:
    """Return the processes of this host that a guard started for a group; those of other users are not seen."""
    mark, generation = f"MUSTER_GROUP={group}".encode(), f"{GENERATION}=".encode()
    return sorted(
        pid
        for pid, words in environments(proc)
        if mark in words
        and any(word.startswith(generation) for word in words)
        and process_state(pid, proc) not in ("Z", "X", "")
    )


async def unserved(weights: KeptWeights, gpus: int) -> str:
    """Return why no engine may map the weights of this host yet, or empty.

    The directory of the sockets is named by the daemons' key: what serves there was loaded for this engine.

    Args:
        weights: where the daemons are.
        gpus: how many the group uses on this host, with a daemon each.
    """
    fix = f"{weights.group} loads them on all hosts together, see muster status; its unit is {weights.unit}"
    try:
        status, _ = await http.ask(("127.0.0.1", weights.health_port), "/health", ASK_TIMEOUT)
    except (OSError, http.HttpError, asyncio.TimeoutError) as error:
        return f"weights are not kept here yet: no daemon answers ({str(error) or type(error).__name__}); {fix}"
    if status != 200:
        return f"weights are not kept here yet: the daemons' /health answers {status}; {fix}"
    try:
        names = os.listdir(weights.sockets)
    except OSError as error:
        return f"weights are kept for another plan: {weights.sockets} cannot be read ({error.strerror}); {fix}"
    serving = sum(name.endswith(SOCKET) and not name.endswith(DRAFT) for name in names)
    if serving < gpus:
        return f"weights are kept on {serving} of {gpus} GPUs for this plan; {fix}"
    return ""


def blocked(kept: KeptFor, proc: str = "/proc") -> str:
    """Return why no daemon may load weights here, or empty: an engine still maps those of lost daemons, or a stop."""
    held = stopped(kept)
    if held:
        return held
    engine = processes_of(kept.group, proc)
    if engine:
        return (
            f"weights are no longer kept: {len(engine)} processes of {kept.group} still map those of lost daemons;"
            " they are loaded again once that engine ends, or at once by muster restart"
        )
    return ""


def stopped(kept: KeptFor) -> str:
    """Return that an operator stopped the engine's group, whose GPUs are then to be free; or empty."""
    with contextlib.suppress(OSError, ValueError):
        if from_wire(read_json(os.path.join(kept.state_directory, "held.json"))).held == STOPPED:
            return f"stopped by an operator; weights are loaded again when {kept.group} is resumed"
    return ""


def clear(kept: KeptFor) -> None:
    """Remove what daemons of former lives and keys left: no engine is to find a socket that nobody serves."""
    parent = os.path.dirname(kept.sockets)
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)


class DaemonWatch:
    """Asks one host's launcher whether all of its daemons serve, from the start of a generation to its end."""

    def __init__(
        self,
        kept: KeptFor,
        on_serving: Callable[[], None],
        on_lost: Callable[[str], None],
        on_stop: Callable[[str], None],
    ) -> None:
        """`on_lost` gets what is wrong with the daemons, `on_stop` that an operator wants the GPUs free."""
        self._kept = kept
        self._on_serving, self._on_lost, self._on_stop = on_serving, on_lost, on_stop

    async def run(self) -> None:
        """Until cancelled, or until a daemon is lost."""
        serving, silent = False, 0
        while True:
            held = stopped(self._kept)
            if held and not processes_of(self._kept.group):
                self._on_stop(held)
            status = await self._health()
            silent = silent + 1 if status == 0 else 0
            if status == 200 and not serving:
                serving = True
                self._on_serving()
            elif serving and (status not in (0, 200) or silent >= SILENT):
                said = f"/health answers {status}" if status else f"no answer from /health {SILENT} times"
                self._on_lost(f"a weights daemon is gone: {said}")
                return
            await asyncio.sleep(INTERVAL)

    async def _health(self) -> int:
        """The status of the launcher's /health; 0 without an answer."""
        try:
            return (await http.ask(("127.0.0.1", self._kept.health_port), "/health", ASK_TIMEOUT))[0]
        except (OSError, http.HttpError, asyncio.TimeoutError):
            return 0
