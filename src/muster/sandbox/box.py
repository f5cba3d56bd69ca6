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
    """Booted hosts under one name; `up` makes one, `find` returns an existing one."""

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
        """Boot hosts until there are `hosts` of them; running hosts stay as they are.

        Args:
            name: of a new or existing sandbox.
            hosts: least number of hosts.
            gpu: product that new hosts simulate ("H800", "H200", "H20", "H20-3e", "H100").
            gpus: number of GPUs in each new host.
            say: called with each line of progress.

        Raises:
            Refusal: this machine lacks something (all of it is listed), or a host did not come up.
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
        """Return the sandbox of that name whether it is up, half up or gone, for `down`."""
        return cls(state_file.place(name))

    def _claim(self, root: Path) -> None:
        with locked(_MACHINE_LOCK):
            state = state_file.load(self.where)
            if state is None:
                network.close_network(self.where.names)
                state = State(self.name, self._free_network(), str(root))
                state_file.save(self.where, state)
            if not Path(state.base).is_dir():
                raise Refusal(
                    f"sandbox '{self.name}' is built on {state.base}, which is gone",
                    fix=f"muster sandbox down --name {self.name}, then up again",
                )
            network.open_network(self.where.names, state.network)
        if not self.key.is_file():
            contents.make_key(self.key, f"sandbox {self.name}")

    def _all_states(self) -> list[State]:
        """Return the states of all sandboxes of this machine, this one's too."""
        states = (state_file.load(Place(self.where.root, name)) for name in state_file.every(self.where.root))
        return [state for state in states if state]

    def _bases_in_use(self) -> set[str]:
        return {state.base for state in self._all_states()}

    def _hosts_elsewhere(self) -> int:
        return sum(len(state.hosts) for state in self._all_states() if state.name != self.name)

    def _free_network(self) -> str:
        taken = [*network.networks_in_use(), *(state.network for state in self._all_states())]
        return names.free_network(contents.supernet(), taken)

    def _add_hosts(self, count: int, gpu: str, gpus: int) -> None:
        state = self.state
        for index in range(len(state.hosts), count):
            host = Host(names.host_name(index), names.host_address(state.network, index), gpu, gpus, index)
            stale = self._nspawn_host(host)
            stale.power_off()
            stale.unmount()
            shutil.rmtree(self.where.host(host.name), ignore_errors=True)
            state = state.with_host(host)
            state_file.save(self.where, state)

    def _start_all(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._prepare, self.hosts))
        # Now the keys exist. Strict checking must pass by name and by address.
        lines = [f"{h.name},{h.address} {contents.host_key(self.where, h)}" for h in self.hosts]
        write(self.known_hosts, "".join(line + "\n" for line in lines))
        started = time.monotonic()
        fresh = [host for host in self.hosts if self._nspawn_host(host).loop() is None]
        for host in fresh:
            self._nspawn_host(host).start()
        for host in self.hosts:
            self.wait_up(host.name)
        if fresh:
            self._say(f"{len(fresh)} hosts booted in {time.monotonic() - started:.1f} s")

    def down(self) -> None:
        """Remove the sandbox without a trace: processes, mounts, network, files; works on a broken one too."""
        requirements.check()
        with locked(_MACHINE_LOCK):
            self._remove()

    def _remove(self) -> None:
        try:
            state = state_file.load(self.where)
        except Refusal:
            state = None
        directory = self.where.directory / "hosts"
        present = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()
        present |= {host.name for host in state.hosts} if state else set()
        for index, host in enumerate(sorted(present)):
            named = self.where.names
            doomed = nspawn_host.NspawnHost(
                self.where.host(host), Path("/"), named.machine(host), named.veth(index), host, {}
            )
            doomed.power_off()
            doomed.unmount()
        network.close_network(self.where.names)
        if directory.is_dir():
            left = [str(entry) for entry in directory.glob("*/root") if entry.is_mount()]
            if left:
                raise Refusal(f"still mounted: {', '.join(left)}", fix="unmount it and run the command again")
        shutil.rmtree(self.where.directory, ignore_errors=True)
