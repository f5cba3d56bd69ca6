"""The API server of the stand-in: HTTP on one side, the ranks' connections on the other."""

from __future__ import annotations

import argparse
import itertools
import os
import queue
import socket
import threading
import time
from collections import Counter
from typing import Any

from vllm.standin.process import log
from vllm.standin.wire import Line

WHO = "APIServer"
LATENCIES = ("time_to_first_token_seconds", "inter_token_latency_seconds")
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """How many observations were at most how long, as Prometheus counts them."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[sum(seconds > bound for bound in BOUNDS)] += 1
        self.sum += seconds

    def lines(self, name: str, labels: str) -> list[str]:
        """Return it in Prometheus's text format."""
        below = list(itertools.accumulate(self.counts))
        words = [*map(str, BOUNDS), "+Inf"]
        rows = [
            f'{name}_bucket{{{labels},le="{word}"}} {float(count)}' for word, count in zip(words, below, strict=True)
        ]
        return [*rows, f"{name}_sum{{{labels}}} {self.sum}", f"{name}_count{{{labels}}} {float(below[-1])}"]


class Ranks:
    """Every data parallel rank as the head knows it; with hybrid load balancing, as one host knows its own.

    A rank whose connection ends stays in the list: its requests are still sent and never answered. With expert
    parallelism the ranks compute together, so the next request finds out and the engine is dead.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        hybrid = bool(args.data_parallel_hybrid_lb)
        self.size: int = (args.data_parallel_size_local if hybrid else args.data_parallel_size) or 1
        self.first: int = args.data_parallel_start_rank or 0 if hybrid else 0
        self.together = bool(args.enable_expert_parallel) and self.size > 1
        self.lines: dict[int, Line] = {}
        self.gone: set[int] = set()
        self.stale = False
        self.dead = False
        self.ready = threading.Event()
        self.tokens: Counter[int] = Counter()
        self.steps: Counter[int] = Counter()
        self.prompts: Counter[int] = Counter()
        self.finished: Counter[int] = Counter()
        self.running: Counter[int] = Counter()
        self._waiting: dict[str, queue.Queue[str]] = {}
        self._prompt_of: dict[str, int] = {}
        self._asked_at: dict[str, float] = {}
        self._token_at: dict[str, float] = {}
        self.latencies = {name: [Histogram() for _ in range(self.first + self.size)] for name in LATENCIES}
        self._number = itertools.count()
        self._turn = itertools.count()

    def listen(self, port: int, local_only: bool) -> None:
        """Take ranks in until all are there; a rank of an earlier life spoils the start for good."""
        server = socket.create_server(("127.0.0.1" if local_only else "0.0.0.0", port))
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        printed = 0.0
        while not (len(self.lines) == self.size and not self.stale):
            if time.monotonic() - printed > 5:
                log(WHO, "Waiting for READY message from DP Coordinator...")
                printed = time.monotonic()
            time.sleep(0.05)
        self.ready.set()

    def _accept(self, server: socket.socket) -> None:
        while True:
            sock, _ = server.accept()
            threading.Thread(target=self._hear, args=(Line(sock),), daemon=True).start()

    def _hear(self, line: Line) -> None:
        rank = -1
        for message in line.messages():
            kind, rank = message["kind"], message["rank"]
            if kind == "hello" and not self.ready.is_set():
                self.lines[rank] = line
            elif kind == "hello":
                # Seen on 0.32.0: a headless rank that was started anew under a serving head is never taken in.
                rank = -1
            elif kind == "again":
                # Its handshake is over, so this head will never hear a hello of that rank.
                self.stale = self.stale or not self.ready.is_set()
            elif kind == "pong":
                self._put(message["id"], "pong")
            else:
                self._count(rank, message)
        if rank >= 0:
            self.gone.add(rank)

    def _count(self, rank: int, message: dict[str, Any]) -> None:
        self.steps[rank] += 1
        self.tokens[rank] += len(message["made"])
        self.running[rank] = message["running"]
        self.finished[rank] += len(message["finished"])
        for name in message["made"]:
            # vLLM counts a prompt with the engine's first answer to it: a dead engine moves no counter.
            self.prompts[rank] += self._prompt_of.pop(name, 0)
            self._time(rank, name)
            self._put(name, "token")
        for name in message["finished"]:
            self._token_at.pop(name, None)
            self._put(name, "end")

    def _time(self, rank: int, name: str) -> None:
        """Count how long a token took: the first one since its request, another one since the one before."""
        now, asked = time.monotonic(), self._asked_at.pop(name, None)
        since, kind = (asked, LATENCIES[0]) if asked is not None else (self._token_at.get(name, now), LATENCIES[1])
        self.latencies[kind][rank].add(now - since)
        self._token_at[name] = now

    def _put(self, name: str, what: str) -> None:
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.put(what)

    def choose(self, wanted: int | None) -> int:
        """Return the rank for the next request."""
        return self.first + (wanted if wanted is not None else next(self._turn) % self.size)

    def ask(self, rank: int, tokens: int, prompt: int) -> queue.Queue[str]:
        """Send a request to a rank; the answer's events come through the queue.

        Raises:
            RuntimeError: the engine is known to be dead.
        """
        if self.together:
            self._together()
        name = f"r{next(self._number)}"
        events: queue.Queue[str] = queue.Queue()
        self._waiting[name] = events
        self._prompt_of[name] = prompt
        self._asked_at[name] = time.monotonic()
        self.lines[rank].send({"kind": "request", "id": name, "tokens": tokens})
        return events

    def _together(self) -> None:
        if self.gone:
            self.dead = True
            raise RuntimeError("EngineCore encountered an issue. See stack trace (above) for the root cause.")
        for rank in range(self.first, self.first + self.size):
            name = f"p{next(self._number)}"
            self._waiting[name] = answer = queue.Queue()
            self.lines[rank].send({"kind": "ping", "id": name})
            answer.get()

    def metrics(self, model: str) -> str:
        """Return the counters that operators watch, under the names and labels of 0.32.0."""
        out = []
        for name, kind, values in (
            ("num_requests_running", "gauge", self.running),
            ("num_requests_waiting", "gauge", Counter[int]()),
            ("kv_cache_usage_perc", "gauge", Counter[int]()),
            ("num_preemptions_total", "counter", Counter[int]()),
            ("prompt_tokens_total", "counter", self.prompts),
            ("generation_tokens_total", "counter", self.tokens),
            ("iteration_tokens_total_count", "histogram", self.steps),
            ("iteration_tokens_total_sum", "histogram", self.tokens),
            ("request_success_total", "counter", self.finished),
        ):
            base = name.removesuffix("_count").removesuffix("_sum") if kind == "histogram" else name
            if not name.endswith("_sum"):
                out += [f"# HELP vllm:{base} Stand-in.", f"# TYPE vllm:{base} {kind}"]
            reason = ',finished_reason="length"' if name == "request_success_total" else ""
            for rank in range(self.first, self.first + self.size):
                labels = f'engine="{rank}",model_name="{model}"{reason}'
                out.append(f"vllm:{name}{{{labels}}} {float(values[rank])}")
        for name, histograms in self.latencies.items():
            out += [f"# HELP vllm:{name} Stand-in.", f"# TYPE vllm:{name} histogram"]
            for rank in range(self.first, self.first + self.size):
                out += histograms[rank].lines(f"vllm:{name}", f'engine="{rank}",model_name="{model}"')
        return "\n".join(out) + "\n"


def end_when_dead(ranks: Ranks) -> None:
    """End the API server a moment after its engine is known to be dead, so that the failing request is answered."""

    def watch() -> None:
        while not ranks.dead:
            time.sleep(0.05)
        log(WHO, "EngineDeadError: EngineCore encountered an issue.", "ERROR")
        time.sleep(0.3)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
