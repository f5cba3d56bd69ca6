"""What the edge's choice of an engine gives the prefix cache: hits, balance and time to the first token, in one run.

    python benchmarks/edge_prefix.py [--engines 2] [--ranks 1] [--clients 16] [--router PROGRAM] [--out FILE]

Engines on loopback compute a prompt as vLLM does with a prefix cache: blocks of 16 tokens (four characters each), the
longest cached prefix of a prompt is free, the least recently used block goes first. An engine's caches hold half of
what the work needs. Each of its DP ranks has one of its own; where no header names a rank, the one with the fewest
requests is taken. Each way gets the same requests, with empty caches: `least`, `session` (the client names its
conversation), `prefix` and, of several ranks, `prefix` with `edge_prefix_ranks` are HAProxy with the rendered
configuration. PROGRAM is vLLM's router (`vllm-router`), asked without HAProxy and TLS. Times are of these engines, each
rank of which computes 20,000 tokens a second; hits and shares are what is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.edge.live import PATHS, SECONDS, LiveEdge, record
from tests.free_port import free_port

KEY, MODEL = "sk-of-the-benchmark", "m"
BLOCK = 64
"""Characters of a block: 16 tokens of four."""
PREFILL, DECODE = 20_000.0, 0.02
"""Tokens that an engine computes in a second, one prompt after the other; seconds of an answer."""
Turn = dict[str, str]


def rendered(messages: Sequence[Turn]) -> str:
    """Return the prompt that an engine makes of messages."""
    return "".join(f"<{each['role']}>{each['content']}" for each in messages)


@dataclass
class Cache:
    """Blocks of prompts, the least recently used first."""

    capacity: int
    blocks: OrderedDict[int, None] = field(default_factory=OrderedDict)
    queried: int = 0
    hit: int = 0
    requests: int = 0

    def take(self, prompt: str) -> int:
        """Return how many tokens of a prompt must be computed, and keep its blocks."""
        chain, known, counting = 0, 0, True
        for begin in range(0, len(prompt) - BLOCK + 1, BLOCK):
            chain = hash((chain, prompt[begin : begin + BLOCK]))
            counting = counting and chain in self.blocks
            known += counting
            self.blocks[chain] = None
            self.blocks.move_to_end(chain)
        while len(self.blocks) > self.capacity:
            self.blocks.popitem(last=False)
        self.requests += 1
        self.queried += len(prompt) // 4
        self.hit += known * BLOCK // 4
        return len(prompt) // 4 - known * BLOCK // 4


@dataclass
class Rank:
    """One DP rank of an engine."""

    cache: Cache
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    running: int = 0


def engine(port: int, capacity: int, count: int) -> None:
    """Serve until the process is ended; GET /counts says what was asked of each rank's cache, and empties it."""
    ranks = [Rank(Cache(capacity)) for _ in range(count)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            status, answer = "200 OK", None
            if head.startswith("get /counts"):
                counted = [rank.cache for rank in ranks]
                answer = [{"requests": one.requests, "queried": one.queried, "hit": one.hit} for one in counted]
                for rank in ranks:
                    rank.cache = Cache(capacity)
            elif head.startswith("post"):
                body = await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
            if head.startswith(f"post {PATHS[0]}"):
                prompt = rendered(json.loads(body)["messages"])
            if head.startswith(f"post {PATHS[0]}/render "):
                # vLLM's router compares the tokens that engines make of a prompt.
                answer = {"token_ids": [crc32(prompt[at : at + 4].encode()) for at in range(0, len(prompt), 4)]}
            elif head.startswith(f"post {PATHS[0]} "):
                named = head.partition("x-data-parallel-rank:")[2].split()
                rank = ranks[int(named[0])] if named else min(ranks, key=lambda each: each.running)
                rank.running += 1
                compute = rank.cache.take(prompt)
                async with rank.busy:
                    await asyncio.sleep(compute / PREFILL)
                await asyncio.sleep(DECODE)
                rank.running -= 1
                answer = {"choices": [{"message": {"role": "assistant", "content": "answer"}}]}
            elif head.startswith("post"):
                status = "404 Not Found"
            text = json.dumps(answer)
            kind = f"Content-Type: application/json\r\nContent-Length: {len(text)}"
            writer.write(f"HTTP/1.1 {status}\r\n{kind}\r\n\r\n{text}".encode())

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 22) as server:
            await server.serve_forever()

    asyncio.run(main())


@dataclass(frozen=True)
class Work:
    """Requests of one kind.

    Args:
        about: in words.
        conversations: of each, the prompts of its turns, one after the other.
    """

    about: str
    conversations: tuple[tuple[list[Turn], ...], ...]

    @property
    def blocks(self) -> int:
        """How many blocks all its prompts have."""
        whole = Cache(1 << 30)
        for turns in self.conversations:
            for turn in turns:
                whole.take(rendered(turn))
        return len(whole.blocks)


def works(seed: int) -> dict[str, Work]:
    """Return the kinds of work, the same for one seed."""
    draw = random.Random(seed)

    def text(length: int) -> str:
        return "".join(draw.choices("abcdefghijklmnop ", k=length))

    def chat(system: str, turns: int) -> tuple[list[Turn], ...]:
        said: list[Turn] = [{"role": "system", "content": system}]
        prompts = []
        for _ in range(turns):
            said = [*said, {"role": "user", "content": text(600)}]
            prompts.append(said)
            said = [*said, {"role": "assistant", "content": text(800)}]
        return tuple(prompts)

    def asked(system: str, document: str) -> tuple[list[Turn], ...]:
        content = f"{document}\n{text(100)}"
        return ([{"role": "system", "content": system}, {"role": "user", "content": content}],)

    shared, documents = text(4000), [text(16_000) for _ in range(24)]
    questions = [asked(shared, each) for each in documents for _ in range(8)]
    draw.shuffle(questions)
    return {
        "conversations": Work(
            "64 conversations of six turns, one system prompt", tuple(chat(shared, 6) for _ in range(64))
        ),
        "documents": Work("24 documents, eight questions to each", tuple(questions)),
        "one document": Work("192 questions to one", tuple(asked(shared, documents[0]) for _ in range(192))),
        "one prompt": Work("one system prompt, 192 questions", tuple(asked(shared, "") for _ in range(192))),
    }


async def ask_all(
    port: int, tls: ssl.SSLContext | None, conversations: Sequence[tuple[list[Turn], ...]], clients: int, seed: int
) -> list[float]:
    """Have clients take the next turn of any conversation; return the seconds of every request, sorted."""
    turns, took, draw = list(enumerate(conversations)), list[float](), random.Random(seed)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, turn: list[Turn]) -> None:
        body = json.dumps({"messages": turn, "model": MODEL, "max_tokens": 1}).encode()
        writer.write(
            f"POST {PATHS[0]} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {KEY}\r\nX-Session-ID: {number}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        began = time.monotonic()
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert " 200 " in head.split("\r\n")[0], head
        await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
        took.append(time.monotonic() - began)

    async def client() -> None:
        name = "localhost" if tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
        while turns:
            number, prompts = turns.pop(draw.randrange(len(turns)))
            await one(reader, writer, number, prompts[0])
            if prompts[1:]:
                turns.append((number, prompts[1:]))
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return sorted(took)


@contextmanager
def router(program: str, ports: Sequence[int], policy: str) -> Iterator[int]:
    """Have vLLM's router serve before the engines; yields its port."""
    port = free_port()
    words = ["--policy", policy, "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
    urls = [f"http://127.0.0.1:{each}" for each in ports]
    with subprocess.Popen(
        [program, *words, "--log-level", "error", "--worker-urls", *urls], stdout=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + SECONDS
            while not _answers(f"http://127.0.0.1:{port}/v1/models"):
                assert time.monotonic() < deadline, "the router does not answer"
                time.sleep(0.2)
            yield port
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def counts(ports: Sequence[int]) -> list[Mapping[str, int]]:
    """Return what each rank has counted since the last time, and empty its cache."""
    found: list[Mapping[str, int]] = []
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/counts", timeout=SECONDS) as answer:
            found += json.load(answer)
    return found


def row(
    port: int, tls: ssl.SSLContext | None, ports: Sequence[int], work: Work, clients: int, seed: int
) -> dict[str, Any]:
    """Return hits in percent of the prompts' tokens, the busiest rank's share of requests, and times."""
    counts(ports)
    began = time.monotonic()
    took = asyncio.run(ask_all(port, tls, work.conversations, clients, seed))
    seconds, each = time.monotonic() - began, counts(ports)
    return {
        "requests": len(took),
        "hits_percent": round(100 * sum(one["hit"] for one in each) / sum(one["queried"] for one in each), 1),
        "busiest_percent": round(100 * max(one["requests"] for one in each) / len(took), 1),
        "p50_ms": round(1000 * took[len(took) // 2]),
        "p99_ms": round(1000 * took[int(len(took) * 0.99)]),
        "seconds": round(seconds, 1),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=1, help="DP ranks of an engine")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--router", help="vLLM's router: path of its program")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    rows: dict[str, Any] = {"date": date.today().isoformat(), "cores": os.cpu_count(), "engines": args.engines}
    rows |= {"ranks": args.ranks, "clients": args.clients, "work": {}}
    for name, work in works(args.seed).items():
        ports = [free_port() for _ in range(args.engines)]
        capacity = work.blocks // 2 // args.ranks
        given = [(port, capacity, args.ranks) for port in ports]
        servers = [multiprocessing.Process(target=engine, args=one, daemon=True) for one in given]
        for server in servers:
            server.start()
        found: dict[str, Any] = {}
        ways = {name: {"edge_balance": name} for name in ("least", "session", "prefix")}
        if args.ranks > 1:
            ways["prefix, ranks"] = {"edge_balance": "prefix", "edge_prefix_ranks": True}
        for way, settings in ways.items():
            with tempfile.TemporaryDirectory() as place:
                behind = [SimpleNamespace(port=port) for port in ports]
                edge = LiveEdge(Path(place), {"g": (MODEL, behind)}, ranks=args.ranks, **settings)
                edge.keys(**{KEY: record("benchmark")})
                with edge:
                    edge.wait(lambda edge=edge: edge.ask(KEY, model=MODEL, messages=[]).status == 200)
                    tls = ssl.create_default_context(cafile=str(edge.certificate))
                    found[way] = row(edge.port, tls, ports, work, args.clients, args.seed)
        for policy in ("cache_aware", "consistent_hash") if args.router else ():
            with router(args.router, ports, policy) as port:
                found[f"router {policy}"] = row(port, None, ports, work, args.clients, args.seed)
        for server in servers:
            server.kill()
        rows["work"][name] = {"about": work.about, "cache_blocks": capacity, **found}
        print(f"{name}: {work.about}; a rank's cache holds {capacity} blocks")
        for way, figures in found.items():
            print(f"  {way:<23} " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
