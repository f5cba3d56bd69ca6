"""What must hold on this host before the group may start. Each refusal names what was found, needed, and what to do."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass, replace

from . import host_judge, kept_weights
from .config import Config
from .group_settings import Checks, Port
from .host_judge import DEVICE_FIELDS, Device
from .short_commands import run_command

DIGEST = "MUSTER_DIGEST"
"""Variable of the unit: the digest of the plan that it is of."""


@dataclass(frozen=True)
class Gpus:
    """The GPUs that the group uses on this host, those it does not use, and what is wrong with them (or empty)."""

    chosen: tuple[Device, ...] = ()
    unused: tuple[Device, ...] = ()
    problem: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Variables that show a child the chosen GPUs alone."""
        return host_judge.visible((*self.chosen, *self.unused), self.chosen)


def stale_unit(started_with: str, config: Config) -> str:
    """Why this guard may start nothing, or empty: its command line is that of an older plan than guard.json.

    Args:
        started_with: the digest in the unit that systemd started it from; empty outside a unit.
    """
    if started_with in ("", config.group.digest):
        return ""
    return (
        f"systemd started this guard by the unit of plan {started_with[:16]}, and guard.json is of plan "
        f"{config.group.digest}; run the deploy again, or `systemctl daemon-reload` and then restart {config.unit}"
    )


def blocked(checks: Checks, gpus: Gpus) -> str:
    """The first problem that keeps this host from starting a child, or empty."""
    return paths(checks) or disk(checks) or ports(checks.ports) or gpus.problem


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


async def gpus(checks: Checks, timeout: float) -> Gpus:
    """List the host's GPUs and what runs on them, choose the group's, and judge both.

    Asked at once: nvidia-smi is slow where no persistence daemon keeps the driver loaded.
    """
    if not checks.gpus:
        return Gpus()
    listed, apps = await asyncio.gather(_devices(checks, timeout), run_command(checks.apps_command, timeout))
    return listed if listed.problem else replace(listed, problem=_in_use(checks, listed, *apps))


async def _devices(checks: Checks, timeout: float) -> Gpus:
    command: tuple[str, ...] = checks.gpu_command
    fields: tuple[str, ...] = DEVICE_FIELDS
    status, text = await run_command(command, timeout)
    if status != 0 and 'Field "fabric.' in text:
        # Drivers before the fabric fields have no NVSwitch generation that needs them.
        fields = tuple(name for name in fields if not name.startswith("fabric."))
        command = tuple(part.replace(",".join(DEVICE_FIELDS), ",".join(fields)) for part in command)
        status, text = await run_command(command, timeout)
    if status != 0:
        return Gpus(problem=f"`{' '.join(command)}` failed ({_short(text) or status}); {host_judge.driver_fix(text)}")
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    devices = tuple(host_judge.device(dict(zip(fields, row))) for row in rows)
    chosen, count = host_judge.choose(devices, checks.gpus, checks.devices)
    fabric = host_judge.fabric(chosen)
    failed = [each for each in (count, fabric) if each is not None and each.level == host_judge.FAIL]
    unused = tuple(each for each in devices if each not in chosen)
    return Gpus(chosen, unused, failed[0].sentence() if failed else "")


def _in_use(checks: Checks, gpus: Gpus, status: int, text: str) -> str:
    """Also how a start waits for the last generation's GPU memory: its processes are listed until it is back."""
    if status != 0:
        return f"`{' '.join(checks.apps_command)}` failed ({_short(text) or status})"
    others = {each.uuid for each in gpus.unused}
    lines = [line for line in text.splitlines() if line.strip() and line.split(",")[-1].strip() not in others]
    if lines and checks.beside:
        keepers = {str(pid) for pid in kept_weights.processes_of(checks.beside)}
        lines = [line for line in lines if line.split(",")[0].strip() not in keepers]
    if lines:
        return f"{len(lines)} compute processes hold GPUs, needed none; the first: {_short(lines[0])}"
    return ""


def _short(text: str) -> str:
    return " ".join(text.split())[:200]
