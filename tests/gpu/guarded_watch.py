"""What is seen from outside of a guarded group: its processes, the GPUs' memory, /ready, and a load's answers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.faults.sightings import Key, Sighting
from tests.gpu.guarded_host import Host

EVERY = 0.1
FREE_MIB = 500
"""MiB above the idle machine that count as given back."""


class Sampler(threading.Thread):
    """Calls `sample` again and again until `end`."""

    every = EVERY

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self.every):
            self.sample()

    def sample(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        self._over.set()
        self.join(30)


class Processes(Sampler):
    """Every process of every host, as `tests/faults/sightings.py` judges them."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        super().__init__()
        self._hosts = hosts
        self._seen: dict[Key, Sighting] = {}
        self._alive: set[Key] = set()
        self._lock = threading.Lock()
        self._asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
        self._hertz = os.sysconf("SC_CLK_TCK")

    def sample(self) -> None:
        found: dict[Key, Sighting] = {}
        for host in self._hosts:
            for pid in host.pids():
                with contextlib.suppress(OSError, IndexError):
                    seen = self._one(host.host, pid)
                    if seen is not None:
                        found[seen.key] = seen
        now = time.monotonic()
        with self._lock:
            for key in self._alive - set(found):
                self._seen[key] = replace(self._seen[key], ended=now)
            self._seen.update(found)
            self._alive = set(found)

    def _one(self, host: str, pid: int) -> Sighting | None:
        proc = Path(f"/proc/{pid}")
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        if fields[0] in "ZX":
            return None
        now, ticks = time.monotonic(), int(fields[19])
        known = self._seen.get((pid, ticks))
        if known is not None and known.generation:
            return replace(known, last=now, ended=None)
        pairs = (proc / "environ").read_bytes().decode("utf-8", "replace").split("\0")
        env = dict(pair.partition("=")[::2] for pair in pairs)
        title = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")[:200]
        generation, instance = env.get("MUSTER_GENERATION", ""), env.get("MUSTER_INSTANCE", "")
        return Sighting(host, pid, ticks, generation, instance, title, ticks / self._hertz - self._asleep, now)

    @property
    def seen(self) -> list[Sighting]:
        with self._lock:
            return list(self._seen.values())

    @property
    def alive(self) -> list[Sighting]:
        with self._lock:
            return [self._seen[key] for key in self._alive]

    def forget(self) -> None:
        """Drop the dead, so that one fault's do not count in the next."""
        with self._lock:
            self._seen = {key: each for key, each in self._seen.items() if key in self._alive}


class Gpus(Sampler):
    """Memory in use on each GPU, and how many compute processes nvidia-smi lists."""

    def __init__(self) -> None:
        super().__init__()
        self.samples: list[tuple[float, tuple[int, ...], int]] = []
        self.sample()
        self.idle = self.samples[0][1]

    def sample(self) -> None:
        used = _smi("--query-gpu=memory.used")
        apps = _smi("--query-compute-apps=pid")
        if used is not None and apps is not None:
            self.samples.append((time.monotonic(), tuple(int(mib) for mib in used), len(apps)))

    def peak(self, since: float) -> list[int]:
        """Most MiB seen on each GPU since a time."""
        return [max(found) for found in zip(*(used for at, used, _ in self.samples if at >= since), strict=True)]

    def free_at(self, since: float) -> float | None:
        """When all GPUs had first given their memory back and listed no process, after a time."""
        for at, used, apps in list(self.samples):
            if at > since and not apps and all(u <= i + FREE_MIB for u, i in zip(used, self.idle, strict=True)):
                return at
        return None


def _smi(query: str) -> list[str] | None:
    argv = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.split() if done.returncode == 0 else None


class Ready(Sampler):
    """What `/ready` answers, as the times at which it changed."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.changes: list[tuple[float, int]] = []

    def sample(self) -> None:
        status, _ = get(self.url + "/ready")
        if not self.changes or self.changes[-1][1] != status:
            self.changes.append((time.monotonic(), status))

    @property
    def now(self) -> bool:
        return bool(self.changes) and self.changes[-1][1] == 200


class Load(threading.Thread):
    """One client of one DP rank, one request after the other, for as long as it takes."""

    def __init__(self, url: str, model: str, rank: int, tokens: int) -> None:
        super().__init__(daemon=True)
        self.url, self.model, self.rank, self.tokens = url, model, rank, tokens
        self.sent: float | None = None
        self.answered, self.failed = 0, list[tuple[float, float, str]]()
        """How many were answered; when those that were not were sent and ended, and how."""
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.is_set():
            self.sent = time.monotonic()
            problem = complete(self.url, self.model, self.rank, self.tokens, 600)
            if problem:
                self.failed.append((self.sent, time.monotonic(), problem))
                self.sent = None
                self._over.wait(1)
            else:
                self.answered += 1

    def end(self) -> None:
        self._over.set()


def complete(url: str, model: str, rank: int, tokens: int, timeout: float) -> str:
    """Ask one DP rank for some tokens; what was wrong, or empty."""
    body = {"model": model, "prompt": "hello world " * 100, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    headers = {"Content-Type": "application/json", "X-data-parallel-rank": str(rank)}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            json.load(response)
            return ""
    except (OSError, ValueError) as error:
        return str(error)[:120] or type(error).__name__


def get(url: str) -> tuple[int, str]:
    """Status and body; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=3) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)
