"""A sandbox: real systemd hosts on this machine, up and down."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from muster.errors import Refusal
from muster.sandbox import contents, limits, names, network, nspawn_host, requirements, root_image, state_file
from muster.sandbox.faults import Faults
from muster.sandbox.reach import tell
from muster.sandbox.shell import locked, write
from muster.sandbox.state_file import Host, Place, State

_MACHINE_LOCK = Path("/run/lock/muster-sandbox.lock")


class Sandbox(Faults):
    """Some booted hosts under one name; build one with `up` or `find`."""

    @classmethod
    def up(
        cls,
        name: str = "muster",
        hosts: int = 2,
        *,
        gpu: str = "H200",
        gpus: int = 1,
        say: Callable[[str], None] = tell,
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
        requirements.check()
        if not 1 <= hosts <= names.MAX_HOSTS:
            raise Refusal(f"a sandbox of {hosts} hosts cannot be made", needed=f"1 to {names.MAX_HOSTS}")
        box = cls(state_file.place(name), say=say)
        root = root_image.ensure(box.where.bases, say, box._bases_in_use)
        box.where.directory.mkdir(parents=True, exist_ok=True)
        with locked(box.where.directory / "lock"):
            box._claim(root)
            limits.ensure(box._hosts_elsewhere() + hosts, say)
            box._add_hosts(hosts, gpu, gpus)
            box._start_all()
        return box

    @classmethod
    def find(cls, name: str = "muster") -> Sandbox:
        """Return the sandbox of that name.

        Raises:
            Refusal: it is not up.
        """
        box = cls(state_file.place(name))
        if state_file.load(box.where) is None:
            raise Refusal(f"sandbox '{name}' is not up", fix=f"muster sandbox up --name {name}")
        return box

    @classmethod
    def named(cls, name: str) -> Sandbox:
        """Return the sandbox of that name whether it is up, half up or gone; for `down`."""
        return cls(state_file.place(name))

    def _claim(self, root: Path) -> None:
        with locked(_MACHINE_LOCK):
            found = state_file.load(self.where)
            if found is None:
                network.close_network(self.where.names)
                found = State(self.name, self._free_network(), str(root))
                state_file.save(self.where, found)
            if not Path(found.base).is_dir():
                raise Refusal(
                    f"sandbox '{self.name}' stands on {found.base}, which is gone",
                    fix=f"muster sandbox down --name {self.name}, then up again",
                )
            network.open_network(self.where.names, found.network)
        if not self.key.is_file():
            contents.make_key(self.key, f"sandbox {self.name}")

    def _bases_in_use(self) -> set[str]:
        found = (state_file.load(Place(self.where.root, name)) for name in state_file.every(self.where.root))
        return {other.base for other in found if other}

    def _hosts_elsewhere(self) -> int:
        others = [name for name in state_file.every(self.where.root) if name != self.name]
        found = (state_file.load(Place(self.where.root, name)) for name in others)
        return sum(len(other.hosts) for other in found if other)

    def _free_network(self) -> str:
        taken = network.networks_in_use()
        for other in state_file.every(self.where.root):
            neighbour = state_file.load(Place(self.where.root, other))
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
            state_file.save(self.where, found)

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

    def down(self) -> None:
        """Remove every trace of the sandbox: processes, mounts, network, files. Works on a broken one."""
        requirements.check()
        with locked(_MACHINE_LOCK):
            self._remove()

    def _remove(self) -> None:
        try:
            found = state_file.load(self.where)
        except Refusal:
            found = None
        directory = self.where.directory / "hosts"
        there = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()
        there |= {host.name for host in found.hosts} if found else set()
        for index, host in enumerate(sorted(there)):
            named = self.where.names
            guest = nspawn_host.Machine(
                self.where.host(host), Path("/"), named.machine(host), named.veth(index), host, {}
            )
            guest.power_off()
            guest.unmount()
        network.close_network(self.where.names)
        if directory.is_dir():
            left = [str(entry) for entry in directory.glob("*/root") if entry.is_mount()]
            if left:
                raise Refusal(f"still mounted: {', '.join(left)}", fix="unmount it and run the command again")
        shutil.rmtree(self.where.directory, ignore_errors=True)
