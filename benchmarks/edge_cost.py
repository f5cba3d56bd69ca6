"""What the edge costs a request: time to the first token and tokens a second through it and past it, in one run.

    python benchmarks/edge_cost.py [--clients 1,16,64] [--seconds 10] [--tokens 50] [--pause 0.01]
                                   [--max-body 1048576] [--out FILE]

A real HAProxy with the rendered configuration on loopback, with TLS and a key, before an engine that streams a token
each `--pause` seconds from the moment it has the request. Half of the clients ask the edge and half the engine, at the
same time, each over a connection that it keeps. Then wrong and revoked keys are sent as fast as four connections take
them, alone and while 64 clients go on, every other one of them with streams.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.edge.live import LiveEdge, record
from tests.free_port import free_port

KEY, REVOKED = "sk-of-the-benchmark", "sk-revoked"
BODY, WHOLE = (
    json.dumps({"messages": [{"role": "user", "content": "x" * 4000}], "stream": stream, "model": "m"}).encode()
    for stream in (True, False)
)
UNDER_ATTACK = 64
"""Clients that go on while keys are refused."""
PIPELINED = 100


def engine(port: int, tokens: int, pause: float) -> None:
    """Serve streams until the process is ended."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            if head.startswith(b"get"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            if await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0])) == WHOLE:
                await asyncio.sleep(tokens * pause)
                answer = b"data: word\n" * tokens
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
                continue
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(tokens):
                await asyncio.sleep(pause)
                writer.write(b"b\r\ndata: word\n\r\n")
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
            await server.serve_forever()

    asyncio.run(main())


class Client:
    """One that asks again and again over one connection."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self.port, self.tls = port, tls
        self.first: list[float] = []
        self.tokens = 0

    async def run(self, begin: float, until: float) -> None:
        await asyncio.sleep(begin - time.monotonic())
        name = "localhost" if self.tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname=name)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {KEY}\r\n"
        request = f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        while time.monotonic() < until:
            began = time.monotonic()
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in answer.split(b"\r\n")[0], answer
            seen = 0
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
                if not seen:
                    self.first.append(time.monotonic() - began)
                seen += size // 11
            await reader.readline()
            self.tokens += seen
        writer.close()


async def compare(edge: LiveEdge, port: int, clients: int, seconds: float, spread: float) -> dict[str, Any]:
    """Return p50 and p99 of the time to the first token, in ms, and tokens a second, on both ways.

    Clients begin within `spread` seconds, for those that begin together stay together, and wait for one another.
    """
    tls = ssl.create_default_context(cafile=str(edge.certificate))
    ways = {
        "edge": [Client(edge.port, tls) for _ in range((clients + 1) // 2)],
        "direct": [Client(port, None) for _ in range((clients + 1) // 2)],
    }
    now, until = time.monotonic(), time.monotonic() + seconds
    begins = (now + random.uniform(0, spread) for _ in range(clients + 1))
    await asyncio.gather(*(client.run(next(begins), until) for group in ways.values() for client in group))
    return {way: _figures(group, seconds) for way, group in ways.items()}


def _figures(clients: Sequence[Client], seconds: float) -> dict[str, Any]:
    first = sorted(one for client in clients for one in client.first)
    return {
        "requests": len(first),
        "p50_ms": round(1000 * first[len(first) // 2], 2),
        "p99_ms": round(1000 * first[int(len(first) * 0.99)], 2),
        "tokens_per_s": round(sum(client.tokens for client in clients) / seconds, 1),
    }


def refused_a_second(port: int, certificate: str, seconds: float) -> float:
    """Return what `refusals` does, for a process of its own."""
    return asyncio.run(refusals(port, certificate, seconds))


async def refusals(port: int, certificate: str, seconds: float) -> float:
    """Return how many wrong and revoked keys are refused a second."""
    tls = ssl.create_default_context(cafile=certificate)
    until, refused = time.monotonic() + seconds, 0

    async def flood(number: int) -> None:
        nonlocal refused
        key = REVOKED if number % 2 else f"sk-{number}"
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost")
        head = f"POST /v1/completions HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\nAuthorization: Bearer {key}"
        while time.monotonic() < until:
            writer.write((f"{head}\r\n\r\n" * PIPELINED).encode())
            for _ in range(PIPELINED):
                answer = await reader.readuntil(b"\r\n\r\n")
                assert b" 401 " in answer.split(b"\r\n")[0], answer
                await reader.readexactly(int(answer.lower().partition(b"content-length:")[2].split()[0]))
                refused += 1
        writer.close()

    await asyncio.gather(*(flood(number) for number in range(4)))
    return round(refused / seconds)


async def attacked(edge: LiveEdge, seconds: float) -> dict[str, Any]:
    """Return what became of the requests of clients with a key while keys are refused at the highest rate."""
    tls = ssl.create_default_context(cafile=str(edge.certificate))
    until = time.monotonic() + seconds
    outcomes: Counter[str] = Counter()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {KEY}\r\n"

    async def one(body: bytes, kind: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port, ssl=tls, server_hostname="localhost")
        writer.write(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.read()
        writer.close()
        whole = answer.endswith(b"0\r\n\r\n" if body is BODY else b"word\n")
        outcomes[f"{kind} {'done' if answer.startswith(b'HTTP/1.1 200') and whole else 'failed'}"] += 1

    async def client(index: int) -> None:
        body, kind = (BODY, "streams") if index % 2 else (WHOLE, "whole answers")
        while time.monotonic() < until:
            try:
                await one(body, kind)
            except OSError:
                outcomes[f"{kind} failed"] += 1

    with ProcessPoolExecutor(1) as apart:
        given = edge.port, str(edge.certificate), seconds
        flood = asyncio.get_running_loop().run_in_executor(apart, refused_a_second, *given)
        refused, *_ = await asyncio.gather(flood, *map(client, range(UNDER_ATTACK)))
    return {"refused_per_s": refused, **dict(sorted(outcomes.items()))}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1,16,64")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--pause", type=float, default=0.01)
    parser.add_argument("--max-body", type=int, default=1 << 20, help="edge_max_body: the size of HAProxy's buffers")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    port = free_port()
    server = multiprocessing.Process(target=engine, args=(port, args.tokens, args.pause), daemon=True)
    server.start()
    rows: dict[str, Any] = {"date": date.today().isoformat(), "cores": os.cpu_count(), "clients": {}}
    with tempfile.TemporaryDirectory() as place:
        edge = LiveEdge(Path(place), {"g": ("m", [SimpleNamespace(port=port)])}, edge_max_body=args.max_body)
        edge.keys(**{KEY: record("benchmark"), REVOKED: {**record("revoked"), "revoked": 2}})
        with edge:
            edge.wait(lambda: edge.ask(KEY, model="m", stream=True).status == 200)
            for clients in map(int, args.clients.split(",")):
                row = asyncio.run(compare(edge, port, 2 * clients, args.seconds, args.tokens * args.pause))
                rows["clients"][clients] = row
                for way, figures in row.items():
                    print(
                        f"{clients:>4} clients, {way:<6} "
                        + ", ".join(f"{key} {value}" for key, value in figures.items())
                    )
            rows["refused_per_s"] = refused_a_second(edge.port, str(edge.certificate), args.seconds)
            print(f"wrong and revoked keys refused: {rows['refused_per_s']:,} a second")
            rows["attacked"] = asyncio.run(attacked(edge, args.seconds))
            print(f"the same while {UNDER_ATTACK} clients go on: {rows['attacked']}")
    server.kill()
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
