"""What is seen from outside of a guarded group: its processes, the GPUs' memory, /ready, and a load's answers."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

from tests.faults.sampler import Processes, Sampler
from tests.gpu.guarded_host import Host

EVERY = 0.1
FREE_MIB = 500
"""MiB above the idle machine that count as given back."""


class HostProcesses(Processes):
    """Every process of every host of this machine."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        super().__init__(EVERY)
        self._hosts = hosts

    def pids(self) -> Iterator[tuple[str, int]]:
        for host in self._hosts:
            for pid in host.pids():
                yield host.host, pid


class Gpus(Sampler):
    """Memory in use on each GPU, and how many compute processes nvidia-smi lists."""

    def __init__(self) -> None:
        super().__init__(EVERY)
        self.used: list[tuple[float, tuple[int, ...], int]] = []
        self.sample()
        self.idle = self.used[0][1]

    def sample(self) -> None:
        used = _smi("--query-gpu=memory.used")
        apps = _smi("--query-compute-apps=pid")
        if used is not None and apps is not None:
            self.used.append((time.monotonic(), tuple(int(mib) for mib in used), len(apps)))

    def peak(self, since: float) -> list[int]:
        """Most MiB seen on each GPU since a time."""
        return [max(each) for each in zip(*(used for at, used, _ in self.used if at >= since), strict=True)]

    def free_at(self, since: float) -> float | None:
        """When all GPUs had first given their memory back and listed no process, after a time."""
        for at, used, apps in list(self.used):
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
        super().__init__(EVERY)
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
