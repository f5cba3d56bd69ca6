"""Short commands on this host, and conditions that one or a TCP address meets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from .group_settings import Probe

CHUNK = 64 * 1024


async def probe_holds(probe: Probe, env: Mapping[str, str]) -> bool:
    """Whether the condition is met now."""
    if probe.tcp is not None:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(*probe.tcp), probe.timeout)
        except (OSError, asyncio.TimeoutError):
            return False
        writer.close()
        return True
    status, _ = await run_command(probe.command, probe.timeout, env)
    return status == 0


async def run_command(argv: Sequence[str], timeout: float, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Status and output (64 KiB at most) of a short command; status 124 after `timeout` s, 127 when it is missing.

    Polled: the guard reaps its children itself and runs no asyncio child watcher.
    """
    env = dict(os.environ if env is None else env)
    program = shutil.which(argv[0], path=env.get("PATH", os.defpath))
    if program is None:
        return 127, f"{argv[0]} is not in PATH={env.get('PATH', os.defpath)}"
    process = subprocess.Popen(
        list(argv), executable=program, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    text = b""
    until = time.monotonic() + timeout
    pause = 0.01
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                while data := os.read(descriptor, CHUNK):
                    text = (text + data)[:CHUNK]
            status = process.poll()
            if status is not None:
                return status, text.decode("utf-8", "replace")
            if time.monotonic() > until:
                return 124, f"{argv[0]} did not end within {timeout:g} s"
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.2)
    finally:
        if process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            # Not waited for: nvidia-smi on a broken GPU cannot even be killed. The interpreter reaps it later.
        process.stdout.close()


def describe_exit(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"was killed by {name}"
