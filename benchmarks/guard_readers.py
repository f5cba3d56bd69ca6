"""What it costs a head's guard to be read: its page, `/status` and `/metrics`, by the size of the group.

    python benchmarks/guard_readers.py [--hosts 2,16,64] [--requests 300] [--out FILE]

The head's own control port and answers serve a group that runs, with 8 DP ranks on each host and its last failures; one
process asks, one request at a time, each over a connection of its own. Processor time is the serving process's, from
/proc; what polling once a second costs is that of one request. Nothing else of the guard runs in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import time
import urllib.request
from dataclasses import replace
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.faults.sampler import cpu_seconds

from muster.guard import config, head_core, liveness
from muster.guard.answers import Answers
from muster.guard.control_port import ControlPort
from muster.guard.messages import RUN, RUNNING, Failure, Report
from muster.guard.restart_policy import KEEP, RestartRecord

PATHS = ("/", "/status", "/metrics")
KEY = "a-key-of-the-benchmark"
RANKS = 8


def guard_of(hosts: int) -> Any:
    """The parts of a head's guard that its answers are made of, for a group that serves."""
    names = [f"gpu-{number}" for number in range(hosts)]
    members = [
        {
            "host": name,
            "address": f"10.0.0.{number + 1}",
            "node_rank": number,
            "dp_ranks": [*range(RANKS * number, RANKS * (number + 1))],
        }
        for number, name in enumerate(names)
    ]
    data = {
        "version": 1,
        "group": "kimi-k2-instruct",
        "recipe": "kimi-k2-instruct",
        "digest": "722510bcbf6b4656",
        "engine": "vllm-0.33.0-py3.12-b5847931",
        "unit": "muster-kimi-k2-instruct.service",
        "host": names[0],
        "head": {"host": names[0], "address": "10.0.0.1", "control_port": 29600},
        "members": members,
        "endpoint": {"address": "127.0.0.1", "port": 8000},
        "processes": [{"name": "vllm"}],
    }
    head = config.parse(json.dumps(data))
    now = time.monotonic()
    failures = tuple(Failure(names[-1], "vllm was killed by SIGKILL", lines="x" * 15_000, at=now) for _ in range(KEEP))
    state = head_core.start(head.group, head.settings, "g" * 32, RestartRecord(failures=failures, restarts=8), now)
    peers = {}
    for name, peer in state.peers.items():
        report = Report(name, head.group.name, head.group.digest, head.group.engine, "i" * 16, 9, "g" * 32, RUNNING)
        peers[name] = replace(peer, instance=report.instance, report=report, heard=now)
    engine, _ = liveness.step(liveness.start(head.settings, head.group.dp_ranks), liveness.Up(), now)
    for rank in head.group.dp_ranks:
        engine, _ = liveness.step(engine, liveness.CanaryBack(rank, "answered"), now)
    it = SimpleNamespace(
        state=replace(state, phase=RUN, ready_at=now, peers=peers),
        liveness=engine,
        refusals={},
        metrics_problem="",
        last_refusal="",
        explain=lambda: "running",
    )
    return SimpleNamespace(config=head, head=it, store=SimpleNamespace(load_start=lambda: 75.0))


def serve(hosts: int, pipe: Connection) -> None:
    """Answer until this process is ended; send the port first."""
    answers = Answers(guard_of(hosts), KEY, frozenset())

    async def run() -> None:
        port = ControlPort("g", b"k" * 32, frozenset(), lambda report: None, lambda name: {}, answers.get, 20.0)
        await port.listen("127.0.0.1", 0)
        pipe.send(port.port)
        await asyncio.Event().wait()

    asyncio.run(run())


def measured(hosts: int, requests: int) -> list[dict[str, Any]]:
    """One row for each path."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(hosts, there), daemon=True)
    child.start()
    rows = []
    try:
        port = here.recv()
        assert child.pid is not None
        for path in PATHS:
            asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {KEY}"})
            times, size, before = [], 0, cpu_seconds(child.pid)
            for _ in range(requests):
                began = time.perf_counter()
                with urllib.request.urlopen(asked, timeout=30) as answer:
                    size = len(answer.read())
                times.append(time.perf_counter() - began)
            cpu = (cpu_seconds(child.pid) - before) / requests
            rows.append(
                {
                    "hosts": hosts,
                    "ranks": RANKS * hosts,
                    "path": path,
                    "bytes": size,
                    "median_ms": round(1000 * statistics.median(times), 2),
                    "cpu_ms": round(1000 * cpu, 2),
                }
            )
    finally:
        child.terminate()
        child.join(10)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="2,16,64")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    rows = [row for hosts in words.hosts.split(",") for row in measured(int(hosts), words.requests)]
    print("| hosts | DP ranks | read | bytes | median | processor time |\n| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['hosts']} | {row['ranks']} | `{row['path']}` | {row['bytes']:,} | {row['median_ms']} ms "
            f"| {row['cpu_ms']} ms |"
        )
    if words.out:
        about = {"date": str(date.today()), "python": sys.version.split()[0], "requests": words.requests, "rows": rows}
        words.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
