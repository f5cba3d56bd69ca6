"""What the guard asks before a start, where the answer may not come."""

from __future__ import annotations

import asyncio
import threading

from muster.guard import start_gate


def test_a_disk_that_hangs_holds_up_nothing() -> None:
    released = threading.Event()

    async def asks() -> tuple[str, bool]:
        slow: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        thread = start_gate.reads_aside(lambda: str(released.wait(20)), slow)
        swift: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        start_gate.reads_aside(lambda: "auto=1", swift)
        text = await asyncio.wait_for(swift, 10)
        slow.cancel()
        return text, thread.is_alive() and thread.daemon

    try:
        assert asyncio.run(asks()) == ("auto=1", True)
    finally:
        released.set()  # its answer comes when nobody waits any more
