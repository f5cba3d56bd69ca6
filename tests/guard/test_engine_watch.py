"""What the head asks of the engine."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

from muster.guard import config
from muster.guard.engine_watch import EngineWatch, drained

from .test_config import DATA


class Host:
    """A host's endpoint: how many ranks it counts, what it was asked, and what its metrics say."""

    def __init__(self, first: int, lies: bool = False) -> None:
        self.first, self.lies = first, lies
        self.pinned: list[int] = []
        self.in_flight = 0
        self.scrapes = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, body = "200 OK", "{}"
        if head.startswith("POST"):
            number = int(head.split("X-data-parallel-rank: ")[1][0])
            self.pinned.append(number)
            status = "200 OK" if number < 2 else "400 Bad Request"
        elif head.startswith("GET /metrics"):
            self.scrapes += 1
            ranks = (0, 1, 2, 3) if self.lies else (self.first, self.first + 1)
            body = "".join(f'vllm:num_requests_running{{engine="{rank}"}} {self.in_flight}\n' for rank in ranks)
        writer.write(f"HTTP/1.0 {status}\r\n\r\n{body}".encode())
        writer.close()


async def scraped(host: Host, times: int) -> None:
    """Wait until a host's metrics have been read so many times more."""
    until = host.scrapes + times

    async def work() -> None:
        while host.scrapes < until:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(work(), 20)


def test_where_every_host_answers_each_is_asked_by_its_own_numbers() -> None:
    """It counts its ranks from 0, and its metrics are believed about its own ranks alone."""
    hosts = [Host(0), Host(2, lies=True)]

    async def work() -> None:
        servers = [await asyncio.start_server(host.serve, "127.0.0.1", 0) for host in hosts]
        ports = [server.sockets[0].getsockname()[1] for server in servers]
        data = {**copy.deepcopy(DATA), "host": "h0", "endpoint": {"address": "127.0.0.1", "port": ports[0]}}
        data["members"] = [
            {**member, "address": "127.0.0.1", "port": port}
            for member, port in zip(data["members"], ports, strict=True)
        ]
        data["settings"] = {"metrics_interval": 0.05}
        settings = config.parse(json.dumps(data))
        ready = asyncio.Event()
        watch = EngineWatch(settings, "", ready.set, lambda reason: None)
        task = asyncio.ensure_future(watch.run())
        await asyncio.wait_for(ready.wait(), 20)
        await scraped(hosts[1], 2)
        assert all(rank.sample is not None for rank in watch.state.ranks.values())
        hosts[1].in_flight = 1
        await scraped(hosts[1], 2)
        in_flight = {number: each.sample.in_flight for number, each in watch.state.ranks.items() if each.sample}
        assert in_flight == {0: 0, 1: 0, 2: 1, 3: 1}
        task.cancel()
        draining = asyncio.ensure_future(drained(settings, ""))
        await scraped(hosts[1], 3)
        assert not draining.done(), "the other host still has a request in flight"
        hosts[1].in_flight = 0
        await asyncio.wait_for(draining, 20)
        for server in servers:
            server.close()

    asyncio.run(work())
    assert [sorted(set(host.pinned)) for host in hosts] == [[0, 1], [0, 1]]


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
