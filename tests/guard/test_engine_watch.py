"""What the head asks of the engine."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

from muster.guard import config
from muster.guard.engine_watch import EngineWatch

from .test_config import DATA


def test_a_canary_decodes_and_carries_the_key_and_its_rank() -> None:
    """One token comes from the prefill; a rank that cannot decode must not pass."""
    canaries: list[tuple[str, dict[str, Any]]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if head.startswith("POST /v1/completions "):
            length = int(head.lower().split("content-length: ")[1].split()[0])
            canaries.append((head, json.loads(await reader.readexactly(length))))
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n{}")
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        data = {**copy.deepcopy(DATA), "host": "h0", "endpoint": {"address": "127.0.0.1", "port": port}}
        ready = asyncio.Event()
        watch = EngineWatch(config.parse(json.dumps(data)), "sesame", ready.set, lambda reason: None)
        task = asyncio.ensure_future(watch.run())
        await asyncio.wait_for(ready.wait(), 20)
        task.cancel()
        server.close()

    asyncio.run(work())
    assert len(canaries) == 4
    for head, body in canaries:
        assert "Authorization: Bearer sesame\r\n" in head
        assert body["max_tokens"] >= 2
        assert body["ignore_eos"] is True
    assert sorted(head.split("X-data-parallel-rank: ")[1][0] for head, _ in canaries) == ["0", "1", "2", "3"]
