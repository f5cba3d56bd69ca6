"""What must hold on this host before the group may start. Each refusal names what was found, needed, and what to do."""

from __future__ import annotations

import errno
import os
import socket

from .children import run_command
from .group_settings import Checks, Port


async def blocked(checks: Checks, timeout: float) -> str:
    """The first problem that keeps this host from starting a child, or empty."""
    return (
        paths(checks)
        or disk(checks)
        or ports(checks.ports)
        or await gpus(checks, timeout)
        or await gpu_processes(checks, timeout)
    )


def paths(checks: Checks) -> str:
    for path in checks.paths:
        if not os.path.exists(path):
            return f"{path} is missing; run the deploy to install the engine and stage the weights"
    return ""


def disk(checks: Checks) -> str:
    for path, needed in checks.disk.items():
        try:
            stat = os.statvfs(path)
        except OSError as error:
            return f"{path} cannot be read ({error.strerror}); it is needed for the engine's files"
        free = stat.f_bavail * stat.f_frsize
        if free < needed:
            return f"{path} has {free / 2**30:.1f} GiB free, needed {needed / 2**30:.1f} GiB; make room there"
    return ""


def ports(requested: tuple[Port, ...]) -> str:
    for port in requested:
        try:
            family = socket.getaddrinfo(port.address, port.port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((port.address, port.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return (
                    f"port {port.port} on {port.address} is taken; find its owner with `ss -ltnp sport = :{port.port}`"
                )
            return f"port {port.port} on {port.address} cannot be bound ({error}); is the address on this host?"
    return ""


async def gpus(checks: Checks, timeout: float) -> str:
    if not checks.gpus:
        return ""
    status, text = await run_command(checks.gpu_command, timeout)
    if status != 0:
        return f"`{' '.join(checks.gpu_command)}` failed ({_short(text) or status}); is the driver loaded?"
    visible = [line for line in text.splitlines() if line.strip()]
    if len(visible) != checks.gpus:
        return f"{len(visible)} GPUs are visible, needed {checks.gpus}; see nvidia-smi and the kernel log"
    return ""


async def gpu_processes(checks: Checks, timeout: float) -> str:
    """Also makes a start wait for the last generation's GPU memory: its processes are listed until it is free."""
    if not checks.gpus:
        return ""
    status, text = await run_command(checks.apps_command, timeout)
    if status != 0:
        return f"`{' '.join(checks.apps_command)}` failed ({_short(text) or status})"
    processes = [line for line in text.splitlines() if line.strip()]
    if processes:
        return f"{len(processes)} compute processes hold GPUs, needed none; the first: {_short(processes[0])}"
    return ""


def _short(text: str) -> str:
    return " ".join(text.split())[:200]
