"""What must hold on a host before a start, and the words of each refusal."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from pathlib import Path

import pytest

from muster.guard import host_judge, start_checks
from muster.guard.config import parse
from muster.guard.group_settings import Checks, Port

from .test_config import DATA

GPU = ("printf", "0, GPU-0, 00000000:18:00.0, Completed, Success\n1, GPU-1, 00000000:9C:00.0, Completed, Success\n")
NO_DRIVER = "see whether the driver is loaded (lsmod | grep nvidia; journalctl -k | grep -i nvrm)"
MISSING = (
    "number of GPUs: 2; missing: GPU 2, 3, 4, 5, 6, 7; needed: 8; see dmesg for Xid 79 and lspci | grep -i nvidia;"
    " power-cycle the host, then have the GPU replaced"
)
FABRIC = "wait for Fabric Manager; if it stays so, " + host_judge.START_FABRIC


def blocked(checks: Checks) -> str:
    async def work() -> str:
        return start_checks.blocked(checks, await start_checks.gpus(checks, 0.5))

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("checks", "reason"),
    [
        (Checks(), ""),
        (Checks(gpus=2, gpu_command=GPU, apps_command=("true",)), ""),
        (
            Checks(gpus=8, gpu_command=GPU, apps_command=("true",)),
            MISSING,
        ),
        (
            Checks(gpus=2, gpu_command=("sh", "-c", "echo No devices; exit 9"), apps_command=("true",)),
            f"`sh -c echo No devices; exit 9` failed (No devices); {NO_DRIVER}",
        ),
        (
            Checks(gpus=2, gpu_command=GPU, apps_command=("echo", "4711, python, 12000 MiB")),
            "1 compute processes hold GPUs, needed none; the first: 4711, python, 12000 MiB",
        ),
        (
            Checks(gpus=2, gpu_command=("sleep", "60"), apps_command=("true",)),
            f"`sleep 60` failed (sleep did not end within 0.5 s); {NO_DRIVER}",
        ),
        (
            Checks(paths=("/", "/nonexistent/stamp")),
            "/nonexistent/stamp is missing; run the deploy to install the engine and stage the weights",
        ),
    ],
)
def test_local_checks(checks: Checks, reason: str) -> None:
    assert blocked(checks) == reason


def test_a_fabric_in_progress_blocks_with_that_word() -> None:
    listed = "0, GPU-0, 00000000:18:00.0, Completed, Success\n1, GPU-1, 00000000:9C:00.0, In Progress, N/A\n"
    reason = blocked(Checks(gpus=2, gpu_command=("printf", listed), apps_command=("true",)))
    assert reason == f"NVLink fabric: GPU 1: In Progress, N/A; needed: Completed, Success; {FABRIC}"


def test_a_group_of_some_gpus_ignores_what_runs_on_the_others() -> None:
    apps = ("printf", "4711, python, 12000 MiB, GPU-1\n")
    assert blocked(Checks(gpus=1, gpu_command=GPU, apps_command=apps)) == ""
    assert "4711, python" in blocked(Checks(gpus=1, devices=("1",), gpu_command=GPU, apps_command=apps))
    gpus = asyncio.run(start_checks.gpus(Checks(gpus=1, devices=("1",), gpu_command=GPU), 0.5))
    assert gpus.environment == {"CUDA_VISIBLE_DEVICES": "GPU-1"}
    assert asyncio.run(start_checks.gpus(Checks(gpus=2, gpu_command=GPU), 0.5)).environment == {}


def test_a_driver_without_the_fabric_fields_is_asked_again(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("""#!/bin/sh
case "$1" in *fabric*) echo 'Field "fabric.state" is not a valid field to query.'; exit 2;; esac
echo "0, GPU-0, 00000000:18:00.0"
""")
    tool.chmod(0o755)
    command = (str(tool), *Checks().gpu_command[1:])
    gpus = asyncio.run(start_checks.gpus(Checks(gpus=1, gpu_command=command, apps_command=("true",)), 5.0))
    assert (gpus.problem, [each.uuid for each in gpus.chosen]) == ("", ["GPU-0"])


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


def test_a_guard_of_an_older_unit_starts_nothing() -> None:
    config = parse(json.dumps(DATA))
    assert start_checks.stale_unit("", config) == start_checks.stale_unit(config.group.digest, config) == ""
    assert "by the unit of plan 0ld," in start_checks.stale_unit("0ld", config)
    assert "daemon-reload" in start_checks.stale_unit("0ld", config)
