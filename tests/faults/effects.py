"""What is done to the group, and how it is taken away again. Each effect returns its undoing, or None."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from muster.sandbox.nspawn_host import cgroup_mounts
from tests.faults.group import CONTROL, ENDPOINT, HEAD, MEMBER, UNIT, Group

Undo = Callable[[], None] | None


class CannotRun(Exception):
    """This machine cannot carry the effect out; says what it lacks."""


def send(group: Group, host: str, role: str, name: str) -> Undo:
    """A signal to one process. A stopped one needs no undoing: it is killed, or it was no recovery."""
    group.signal(host, role, signal.Signals[f"SIG{name}"])
    return None


def cut(group: Group, host: str) -> Undo:
    """A host's cable, pulled."""
    group.box.cut(host)
    return lambda: group.box.heal(host)


def deafen(group: Group, host: str, other: str) -> Undo:
    """One way only: a host hears nothing of another that still hears it."""
    group.box.deafen(host, other)
    return lambda: group.box.hear(host)


_DATA_PATH = """\
table ip muster-faults {{
  chain in {{
    type filter hook input priority 0; policy accept;
    ip saddr {other} tcp dport {{ 22, {control} }} accept
    ip saddr {other} tcp sport {{ 22, {control} }} accept
    ip saddr {other} drop
  }}
}}
"""


def cut_data_path(group: Group) -> Undo:
    """What the engines say to each other is dropped on both sides; the guards hear each other as before."""
    pairs = ((HEAD, MEMBER), (MEMBER, HEAD))
    for host, other in pairs:
        rules = _DATA_PATH.format(other=group.address(other), control=CONTROL)
        group.box.in_network(host, ["nft", "-f", "-"], stdin=rules)

    def heal() -> None:
        for host, _ in pairs:
            group.box.in_network(host, ["nft", "delete", "table", "ip", "muster-faults"])

    return heal


def reboot(group: Group, host: str) -> Undo:
    """In order, from inside; it is up again when its sshd answers."""
    before = group.box.netns(host)
    group.box.reboot(host, wait=False)

    def up() -> None:
        group.wait("the old boot's end", lambda: _init(group, host) not in (before, None), 60)
        group.box.wait_up(host)

    return up


def _init(group: Group, host: str) -> int | None:
    return next(each.pid for each in group.box.status() if each.host.name == host)


def power_off(group: Group, host: str) -> Undo:
    """No last word, no reset of connections: the cable is dead before the processes are."""
    group.box.kill_power(host)
    return lambda: group.box.start(host)


MEMORY = Path("/sys/fs/cgroup/memory/muster-faults")
"""A version 1 memory control group of the machine. Version 2 hosts carry MemoryMax= themselves."""
ROOM = 64 * 2**20
"""Bytes that the engine may take beyond what it has, when its limit is set."""


def exhaust_memory(group: Group, host: str) -> Undo:
    """The engine's processes get a memory limit and a request that does not fit in it; the kernel kills one."""
    if any("memory" in (mount / "cgroup.controllers").read_text().split() for mount in _unified()):
        group.sh(host, f"systemctl set-property --runtime {UNIT} MemoryMax=256M")
    elif (MEMORY.parent / "memory.limit_in_bytes").exists():
        MEMORY.mkdir(exist_ok=True)
        (MEMORY / "memory.limit_in_bytes").write_text(str(ROOM))
        for each in group.watch.alive:
            if each.host == host and each.generation:
                (MEMORY / "cgroup.procs").write_text(str(each.pid))
    else:
        raise CannotRun("this machine has no memory controller")
    _large_request(group, 4 * ROOM)

    def lift() -> None:
        if MEMORY.is_dir():
            _empty(MEMORY)
        group.sh(host, f"systemctl set-property --runtime {UNIT} MemoryMax=infinity", check=False)

    return lift


def _unified() -> list[Path]:
    return [mount for mount in cgroup_mounts() if (mount / "cgroup.controllers").exists()]


def _empty(folder: Path) -> None:
    """Remove a control group once it is empty; killed processes leave it a moment later."""
    for _ in range(50):
        try:
            folder.rmdir()
            return
        except OSError:
            time.sleep(0.1)


def _large_request(group: Group, size: int) -> None:
    """Send a body that the API server has to hold whole; its death breaks the connection off."""
    part = b"x" * 2**20
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    with socket.create_connection((group.address(HEAD), ENDPOINT), timeout=20) as connection:
        try:
            connection.sendall(head.encode())
            for _ in range(size // len(part)):
                connection.sendall(part)
            answered = connection.recv(100)
        except OSError:
            return
    if answered:
        raise AssertionError(f"the request that was to exhaust the memory was answered: {answered!r}")


def kill_unit(group: Group, host: str) -> Undo:
    """Everything of one unit at once, its guard too."""
    for each in [one for one in group.watch.alive if one.host == host]:
        try:
            os.kill(each.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return None


EFFECTS: dict[str, Callable[..., Undo]] = {
    each.__name__: each for each in (send, cut, deafen, cut_data_path, reboot, power_off, exhaust_memory, kill_unit)
}
