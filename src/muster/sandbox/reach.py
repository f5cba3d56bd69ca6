"""Reach a sandbox's hosts: their state, commands on them, their logs and simulated GPUs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.errors import Refusal
from muster.sandbox import nspawn_host, passthrough, state_file
from muster.sandbox.guest import GPUS
from muster.sandbox.shell import attempt, run, wait_for, write
from muster.sandbox.state_file import Host, Place, State

BOOT_SECONDS = 120.0


def tell(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Condition:
    """The state of one host at this moment."""

    host: Host
    running: bool
    answers: bool
    """Whether sshd accepts a connection."""
    pid: int | None
    """Its process 1, as this machine numbers it."""


class Reach:
    """The hosts of one sandbox, and the ways to reach them."""

    def __init__(self, where: Place, *, say: Callable[[str], None] = tell) -> None:
        self.where = where
        self._say = say

    @property
    def name(self) -> str:
        return self.where.name

    @property
    def state(self) -> State:
        """Its state file, read each time."""
        state = state_file.load(self.where)
        if state is None:
            raise Refusal(f"sandbox '{self.name}' is not up", fix=f"muster sandbox up --name {self.name}")
        return state

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Its hosts, in order."""
        return self.state.hosts

    @property
    def key(self) -> Path:
        """Private key that opens every host as root."""
        return self.where.key

    @property
    def known_hosts(self) -> Path:
        """Host keys as generated, for strict checking."""
        return self.where.known_hosts

    def _nspawn_host(self, host: Host | str) -> nspawn_host.NspawnHost:
        state = self.state
        host = state.host(host) if isinstance(host, str) else host
        shared = {path: False for path in passthrough.machine_indexes().directories if Path(path).is_dir()}
        return nspawn_host.NspawnHost(
            directory=self.where.host(host.name),
            base=Path(state.base),
            machine=self.where.names.machine(host.name),
            cable=self.where.names.veth(host.index),
            hostname=host.name,
            binds={**shared, str(self.where.uv_cache): True},
        )

    def wait_up(self, host: str, timeout: float = BOOT_SECONDS) -> None:
        """Wait until a host has booted and its sshd answers.

        Raises:
            Refusal: it did not within `timeout` seconds; with the end of its console.
        """
        target = self._nspawn_host(host)

        def booted() -> bool:
            asked = target.enter(["systemctl", "is-system-running"])
            return asked.stdout.strip() in {"running", "degraded"} and self.answers(host)

        try:
            wait_for(f"boot of {host}", booted, timeout=timeout)
        except Refusal as refusal:
            tail = target.console.read_text(errors="replace")[-2000:] if target.console.exists() else ""
            raise Refusal(str(refusal), fix=f"read {target.console}", detail=tail) from None

    def console(self, host: str) -> Path:
        """Return the file with a host's console output, of all its boots."""
        return self._nspawn_host(host).console

    def status(self) -> list[Condition]:
        """Return the state of every host."""
        out = []
        for host in self.hosts:
            pid = self._nspawn_host(host).init()
            out.append(Condition(host, pid is not None, pid is not None and self.answers(host.name), pid))
        return out

    def ssh_argv(self, host: str) -> list[str]:
        """Return the `ssh` command that opens a host, with strict host keys and no user configuration."""
        target = self.state.host(host)
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
            "IdentitiesOnly": "yes",
            "ConnectTimeout": "5",
        }
        flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        login = ["-i", str(self.key), "-p", str(target.port), f"{target.user}@{target.address}"]
        return ["ssh", "-F", "none", *flags, *login]

    def answers(self, host: str) -> bool:
        """Whether a host's sshd sends its greeting within 2 seconds."""
        target = self.state.host(host)
        try:
            with socket.create_connection((target.address, target.port), timeout=2) as connection:
                connection.settimeout(2)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def exec(
        self,
        host: str,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host as root, through its namespaces and not over SSH.

        Raises:
            Refusal: it failed and `check` is set.
        """
        done = self._nspawn_host(host).enter(argv, stdin=stdin, timeout=timeout)
        if check and done.returncode != 0:
            raise Refusal(
                f"{host}: `{' '.join(argv)}` ended with status {done.returncode}",
                detail=(done.stderr.strip() or done.stdout.strip())[-2000:],
            )
        return done

    def netns(self, host: str) -> int:
        """Return a process id whose network namespace is the host's (for `nsenter --net --target`).

        Raises:
            Refusal: it is switched off.
        """
        pid = self._nspawn_host(host).init()
        if pid is None:
            raise Refusal(f"{host} is switched off", fix=f"Sandbox.start('{host}')")
        return pid

    def in_network(self, host: str, argv: Sequence[str], *, stdin: str | None = None) -> str:
        """Run one of this machine's commands (ip, tc, nft) in a host's network and return its output."""
        space = ["nsenter", f"--net=/run/netns/{self.where.names.machine(host)}"]
        return run([*space, *argv], stdin=stdin)

    def tree(self, host: str) -> Path:
        """Return a host's root directory on this machine; its /run is not in it."""
        return self._nspawn_host(host).tree

    def gpus(self, host: str) -> dict[str, Any]:
        """Return what a host's simulated GPU tools print from; see `muster.sandbox.simulated_gpus`."""
        loaded: dict[str, Any] = json.loads((self.tree(host) / GPUS.lstrip("/")).read_text())
        return loaded

    def set_gpus(self, host: str, gpus: Mapping[str, Any]) -> None:
        """Change what a host's simulated GPU tools print from."""
        write(self.tree(host) / GPUS.lstrip("/"), json.dumps(gpus, indent=2) + "\n")

    def ssh_sessions(self, host: str, *, since: str | None = None) -> list[str]:
        """Return the "Starting session" lines that sshd logged, one per command or transfer.

        Args:
            since: a journal cursor from `journal_cursor`, to count what came after it.
        """
        argv = ["/usr/bin/journalctl", "--no-pager", "-o", "cat", "-u", "ssh.service"]
        lines = self.exec(host, [*argv, *([f"--after-cursor={since}"] if since else [])]).stdout
        return [line for line in lines.splitlines() if line.startswith("Starting session")]

    def journal_cursor(self, host: str) -> str:
        """Return a cursor at the present end of a host's journal."""
        shown = self.exec(host, ["/usr/bin/journalctl", "--no-pager", "-n", "0", "--show-cursor"]).stdout
        return shown.rpartition("-- cursor: ")[2].strip()

    def ssh(self, host: str, argv: Sequence[str], *, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command on a host through SSH, as pyinfra would reach it."""
        return attempt([*self.ssh_argv(host), *argv], timeout=timeout)
