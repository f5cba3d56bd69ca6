"""Real hosts for the preflight's tests, and the command run on them as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.sandbox.box import Sandbox

ROOT = Path(__file__).parents[2]


# The sandbox serves with vLLM's CPU build, which no driver is too old for.
AS_ON_GPUS = ("--data", "vllm_version=0.33.0", "--data", "torch_backend=auto")


@dataclass(frozen=True)
class Run:
    """What `muster preflight` (or drift, or pyinfra) answered."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        """The JSON answer."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    def levels(self, check: str) -> dict[str, str]:
        """Return host -> level of one check."""
        return {v["host"]: v["level"] for v in self.data["verdicts"] if v["check"] == check}

    def bad(self) -> set[tuple[str, str]]:
        """Return (check, host) of everything that is not ok and not waived."""
        return {(v["check"], v["host"]) for v in self.data["verdicts"] if v["level"] != "ok" and not v["waived"]}

    def found(self, check: str, host: str) -> str:
        """Return what one check found on one host."""
        (verdict,) = [v for v in self.data["verdicts"] if (v["check"], v["host"]) == (check, host)]
        return str(verdict["found"])


def _run(argv: list[str], box: Sandbox, seconds: float) -> Run:
    env = {**os.environ, "MUSTER_SANDBOX": box.name, "COLUMNS": "80"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    return Run(done.returncode, done.stdout, done.stderr)


def muster(box: Sandbox, command: str, *words: str, inventory: str = "", seconds: float = 180) -> Run:
    """Run `muster preflight` or `muster drift` over a sandbox, as over hosts with GPUs.

    Args:
        box: the hosts.
        command: `preflight` or `drift`.
        words: further arguments.
        inventory: another inventory file.
        seconds: how long it may take.
    """
    start = f"from muster.commands.preflight import {command}; {command}()"
    return _run([sys.executable, "-c", start, inventory or "inventories/sandbox.py", *AS_ON_GPUS, *words], box, seconds)


def check(box: Sandbox, *words: str, inventory: str = "") -> Run:
    """Run `muster preflight` without pairs and read its JSON; RDMA is waived, since these hosts have none."""
    return muster(
        box, "preflight", "--no-pairs", "--waive", "rdma.link", "--format", "json", *words, inventory=inventory
    )


def pyinfra(box: Sandbox, *words: str, inventory: str = "inventories/sandbox.py", seconds: float = 180) -> Run:
    """Run the pyinfra command over a sandbox."""
    return _run([sys.executable, "-m", "pyinfra", "-y", inventory, *words, *AS_ON_GPUS], box, seconds)


@contextmanager
def gpus(box: Sandbox, host: str, changed: dict[str, Any]) -> Iterator[None]:
    """Let a host's GPU tools print from another file for a while."""
    before = box.gpus(host)
    box.set_gpus(host, changed)
    try:
        yield
    finally:
        box.set_gpus(host, before)


@contextmanager
def inside(box: Sandbox, host: str, do: list[str], undo: list[str]) -> Iterator[None]:
    """Run a command on a host, and another one afterwards."""
    box.exec(host, do)
    try:
        yield
    finally:
        box.exec(host, undo)


@contextmanager
def network(box: Sandbox, host: str, do: list[str], undo: list[str]) -> Iterator[None]:
    """Change a host's network, and change it back."""
    box.in_network(host, do)
    try:
        yield
    finally:
        box.in_network(host, undo)
