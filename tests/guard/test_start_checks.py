"""What must hold on a host before a start, and the words of each refusal."""

from __future__ import annotations

import asyncio
import shutil
import socket

import pytest

from muster.guard import start_checks
from muster.guard.group_settings import Checks, Port

GPU = ("printf", "GPU-0\nGPU-1\n")


@pytest.mark.parametrize(
    ("checks", "reason"),
    [
        (Checks(), ""),
        (Checks(gpus=2, gpu_command=GPU, apps_command=("true",)), ""),
        (
            Checks(gpus=8, gpu_command=GPU, apps_command=("true",)),
            "2 GPUs are visible, needed 8; see nvidia-smi and the kernel log",
        ),
        (
            Checks(gpus=2, gpu_command=("sh", "-c", "echo No devices; exit 9"), apps_command=("true",)),
            "`sh -c echo No devices; exit 9` failed (No devices); is the driver loaded?",
        ),
        (
            Checks(gpus=2, gpu_command=GPU, apps_command=("echo", "4711, python, 12000 MiB")),
            "1 compute processes hold GPUs, needed none; the first: 4711, python, 12000 MiB",
        ),
        (
            Checks(gpus=2, gpu_command=("sleep", "60"), apps_command=("true",)),
            "`sleep 60` failed (sleep did not end within 0.5 s); is the driver loaded?",
        ),
        (
            Checks(paths=("/", "/nonexistent/stamp")),
            "/nonexistent/stamp is missing; run the deploy to install the engine and stage the weights",
        ),
    ],
)
def test_local_checks(checks: Checks, reason: str) -> None:
    assert asyncio.run(start_checks.blocked(checks, 0.5)) == reason


def test_a_full_disk_blocks_the_next_start() -> None:
    free = shutil.disk_usage("/").free
    assert start_checks.disk(Checks(disk={"/": 1})) == ""
    reason = start_checks.disk(Checks(disk={"/": free * 4.0}))
    assert reason.startswith("/ has ")
    assert reason.endswith("; make room there")


def test_a_taken_port_blocks_and_says_how_to_find_who() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        reason = start_checks.ports((Port("127.0.0.1", port),))
    assert reason == f"port {port} on 127.0.0.1 is taken; find its owner with `ss -ltnp sport = :{port}`"
    assert start_checks.ports((Port("127.0.0.1", port),)) == ""
    assert start_checks.ports((Port("192.0.2.1", port),)).endswith("is the address on this host?")
