"""The guard's coroutines by name. One that fails takes the whole guard with it: systemd then starts a fresh one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine


class NamedTasks:
    """At most one task per name."""

    def __init__(self, on_error: Callable[[str], None]) -> None:
        """`on_error` gets the reason, in words, when a task ends by an exception."""
        self._on_error = on_error
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Coroutine[None, None, None]) -> None:
        self._tasks[name] = asyncio.get_running_loop().create_task(self._watched(name, work))

    def cancel(self, name: str) -> None:
        """End a task, if there is one of that name."""
        if name in self._tasks:
            self._tasks.pop(name).cancel()

    def cancel_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    async def _watched(self, name: str, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._on_error(f"error in the guard's {name}: {type(error).__name__}: {error}")
