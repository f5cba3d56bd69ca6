"""A sandbox: real systemd hosts on this machine, up and down, and what a test does to them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.errors import Refusal
from muster.sandbox import base, contents, machine, names, needs, network, passthrough, state
from muster.sandbox.guest import GPUS
from muster.sandbox.shell import attempt, locked, run, wait_for, write
from muster.sandbox.state import Host, Place, State

_MACHINE_LOCK = Path("/run/lock/muster-sandbox.lock")
BOOT_SECONDS = 120.0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Condition:
    """How one host is, at this moment."""

    host: Host
    running: bool
    answers: bool
    """Whether sshd accepts a connection."""
    pid: int | None
    """Its process 1, as the machine numbers it."""


class Sandbox:
    """Some booted hosts under one name; build one with `up` or `find`."""

    def __init__(self, where: Place, *, say: Callable[[str], None] = _tell) -> None:
        self.where = where
        self._say = say

    @classmethod
    def up(
        cls,
        name: str = "muster",
        hosts: int = 2,
        *,
        gpu: str = "H200",
        gpus: int = 1,
        say: Callable[[str], None] = _tell,
    ) -> Sandbox:
        """Boot hosts until there are as many as asked for; those that run already stay as they are.

        Args:
            name: of the sandbox; also an existing one's.
            hosts: how many it shall have at least.
            gpu: product that new hosts pretend to have ("H800", "H200", "H20", "H20-3e", "H100").
            gpus: how many of it in each new host.
            say: told about progress, one line at a time.

        Raises:
            Refusal: the machine cannot (all that is missing is listed), or a host did not come up.
        """
        needs.check()
        if not 1 <= hosts <= names.MAX_HOSTS:
            raise Refusal(f"a sandbox of {hosts} hosts cannot be made", needed=f"1 to {names.MAX_HOSTS}")
        box = cls(state.place(name), say=say)
        root = base.ensure(box.where.bases, say)
        box.where.directory.mkdir(parents=True, exist_ok=True)
        with locked(box.where.directory / "lock"):
            box._claim(root)
            box._add_hosts(hosts, gpu, gpus)
            box._start_all()
        return box

    @classmethod
    def find(cls, name: str = "muster") -> Sandbox:
        """Return the sandbox of that name.

        Raises:
            Refusal: it is not up.
        """
        box = cls(state.place(name))
        if state.load(box.where) is None:
            raise Refusal(f"sandbox '{name}' is not up", fix=f"muster sandbox up --name {name}")
        return box

    @property
    def name(self) -> str:
        return self.where.name

    @property
    def state(self) -> State:
        """What is written down of it, read afresh."""
        found = state.load(self.where)
        if found is None:
            raise Refusal(f"sandbox '{self.name}' is not up", fix=f"muster sandbox up --name {self.name}")
        return found

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

    # Bringing up

    def _claim(self, root: Path) -> None:
        with locked(_MACHINE_LOCK):
            found = state.load(self.where)
            if found is None:
                network.close_network(self.where.names)
                found = State(self.name, self._free_network(), str(root))
                state.save(self.where, found)
            network.open_network(self.where.names, found.network)
        if not self.key.is_file():
            contents.make_key(self.key, f"sandbox {self.name}")

    def _free_network(self) -> str:
        taken = network.networks_in_use()
        for other in state.every(self.where.root):
            neighbour = state.load(Place(self.where.root, other))
            taken += [neighbour.network] if neighbour else []
        return names.free_network(contents.supernet(), taken)

    def _add_hosts(self, count: int, gpu: str, gpus: int) -> None:
        found = self.state
        for index in range(len(found.hosts), count):
            host = Host(names.host_name(index), names.host_address(found.network, index), gpu, gpus, index)
            stale = self._machine(host)
            stale.power_off()
            stale.unmount()
            shutil.rmtree(self.where.host(host.name), ignore_errors=True)
            found = found.with_host(host)
            state.save(self.where, found)

    def _start_all(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._prepare, self.hosts))
        # The keys exist now; a host's own name and address both lead to it.
        lines = [f"{h.name},{h.address} {contents.host_key(self.where, h)}" for h in self.hosts]
        write(self.known_hosts, "".join(line + "\n" for line in lines))
        started = time.monotonic()
        fresh = [host for host in self.hosts if self._machine(host).loop() is None]
        for host in fresh:
            self._machine(host).start()
        for host in self.hosts:
            self.wait_up(host.name)
        if fresh:
            self._say(f"{len(fresh)} hosts booted in {time.monotonic() - started:.1f} s")

    def _prepare(self, host: Host) -> None:
        network.plug(self.where.names, host, self.state.network)
        guest = self._machine(host)
        guest.mount()
        contents.furnish(self.where, host, self.hosts)

    def _machine(self, host: Host | str) -> machine.Machine:
        found = self.state
        host = found.host(host) if isinstance(host, str) else host
        shared = {path: False for path in passthrough.machine_indexes().directories if Path(path).is_dir()}
        return machine.Machine(
            directory=self.where.host(host.name),
            base=Path(found.base),
            machine=self.where.names.machine(host.name),
            cable=self.where.names.veth(host.index),
            hostname=host.name,
            binds={**shared, str(self.where.uv_cache): True},
        )

    def wait_up(self, host: str, timeout: float = BOOT_SECONDS) -> None:
        """Wait until a host has booted and its sshd answers.

        Raises:
            Refusal: it had not within `timeout` seconds; carries the end of its console.
        """
        guest = self._machine(host)

        def booted() -> bool:
            asked = guest.enter(["systemctl", "is-system-running"])
            return asked.stdout.strip() in {"running", "degraded"} and self.answers(host)

        try:
            wait_for(f"boot of {host}", booted, timeout=timeout)
        except Refusal as late:
            tail = guest.console.read_text(errors="replace")[-2000:] if guest.console.exists() else ""
            raise Refusal(str(late), fix=f"read {guest.console}", detail=tail) from None

    # Taking down

    def down(self) -> None:
        """Remove every trace of the sandbox: processes, mounts, network, files. Works on a broken one."""
        needs.check()
        with locked(_MACHINE_LOCK):
            self._remove()

    def _remove(self) -> None:
        try:
            found = state.load(self.where)
        except Refusal:
            found = None
        directory = self.where.directory / "hosts"
        there = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()
        there |= {host.name for host in found.hosts} if found else set()
        for index, host in enumerate(sorted(there)):
            named = self.where.names
            guest = machine.Machine(self.where.host(host), Path("/"), named.machine(host), named.veth(index), host, {})
            guest.power_off()
            guest.unmount()
        network.close_network(self.where.names)
        if directory.is_dir():
            left = [str(entry) for entry in directory.glob("*/root") if entry.is_mount()]
            if left:
                raise Refusal(f"still mounted: {', '.join(left)}", fix="unmount it and run the command again")
        shutil.rmtree(self.where.directory, ignore_errors=True)

    # What a test does

    def status(self) -> list[Condition]:
        """Return how every host is."""
        out = []
        for host in self.hosts:
            pid = self._machine(host).init()
            out.append(Condition(host, pid is not None, pid is not None and self.answers(host.name), pid))
        return out

    def ssh_argv(self, host: str) -> list[str]:
        """Return the `ssh` command that opens a host, with strict host keys and no user configuration."""
        found = self.state.host(host)
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
            "IdentitiesOnly": "yes",
            "ConnectTimeout": "5",
        }
        flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        target = ["-i", str(self.key), "-p", str(found.port), f"{found.user}@{found.address}"]
        return ["ssh", "-F", "none", *flags, *target]

    def answers(self, host: str) -> bool:
        """Whether a host's sshd sends its greeting within 2 seconds."""
        found = self.state.host(host)
        try:
            with socket.create_connection((found.address, found.port), timeout=2) as line:
                line.settimeout(2)
                return line.recv(4) == b"SSH-"
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
        """Run a command on a host as root, through its namespaces; it counts as no SSH session.

        Raises:
            Refusal: it failed and `check` is set.
        """
        done = self._machine(host).enter(argv, stdin=stdin, timeout=timeout)
        if check and done.returncode != 0:
            raise Refusal(
                f"{host}: `{' '.join(argv)}` ended with status {done.returncode}",
                detail=(done.stderr.strip() or done.stdout.strip())[-2000:],
            )
        return done

    def reboot(self, host: str, *, wait: bool = True, timeout: float = BOOT_SECONDS) -> None:
        """Reboot a host from inside, in order; with `wait`, return when it is up again."""
        before = self._machine(host).init()
        self.exec(host, ["systemctl", "reboot", "--no-block"])
        if wait:
            guest = self._machine(host)
            wait_for(f"shutdown of {host}", lambda: guest.init() != before, timeout=timeout)
            self.wait_up(host, timeout)

    def kill_power(self, host: str) -> None:
        """Cut a host's power: its cable goes dead first, so that its peers see silence and no reset."""
        network.carrier(self.where.names, self.state.host(host), up=False)
        self._machine(host).power_off()

    def start(self, host: str, *, wait: bool = True) -> None:
        """Switch a host on again; nothing happens to one that runs."""
        network.plug(self.where.names, self.state.host(host), self.state.network)
        self._machine(host).start()
        if wait:
            self.wait_up(host)

    def wipe(self, host: str) -> None:
        """Replace a host by a fresh one of the same name, address and host key, as after a new disk."""
        found = self.state.host(host)
        self.kill_power(host)
        guest = self._machine(host)
        guest.unmount()
        for part in ("upper", "work"):
            shutil.rmtree(guest.directory / part, ignore_errors=True)
        self._prepare(found)
        self.start(host)

    def cut(self, host: str) -> None:
        """Pull a host's network cable."""
        network.carrier(self.where.names, self.state.host(host), up=False)

    def heal(self, host: str) -> None:
        """Put a host's network cable back."""
        network.carrier(self.where.names, self.state.host(host), up=True)

    def netns(self, host: str) -> int:
        """Return a process id whose network namespace is the host's (for `nsenter --net --target`).

        Raises:
            Refusal: it is switched off.
        """
        pid = self._machine(host).init()
        if pid is None:
            raise Refusal(f"{host} is switched off", fix=f"Sandbox.start('{host}')")
        return pid

    def in_network(self, host: str, argv: Sequence[str], *, stdin: str | None = None) -> str:
        """Run one of the machine's own commands (ip, tc, nft) in a host's network; returns its output."""
        space = ["nsenter", f"--net=/run/netns/{self.where.names.machine(host)}"]
        return run([*space, *argv], stdin=stdin)

    def tree(self, host: str) -> Path:
        """Return a host's root directory on this machine: its files, but for its /tmp and /run."""
        return self._machine(host).tree

    def gpus(self, host: str) -> dict[str, Any]:
        """Return what a host's simulated GPU tools print from; see `muster.sandbox.gpus`."""
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
        """Return a mark in a host's journal: the end of it, now."""
        shown = self.exec(host, ["/usr/bin/journalctl", "--no-pager", "-n", "0", "--show-cursor"]).stdout
        return shown.rpartition("-- cursor: ")[2].strip()

    def ssh(self, host: str, argv: Sequence[str], *, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command on a host through SSH, as pyinfra would reach it."""
        return attempt([*self.ssh_argv(host), *argv], timeout=timeout)
