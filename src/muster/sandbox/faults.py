"""What a test does to a sandbox's hosts: reboot, cut the power, pull the cable, replace the disk."""

from __future__ import annotations

import shutil

from muster.sandbox import contents, network
from muster.sandbox.reach import BOOT_SECONDS, Reach
from muster.sandbox.shell import wait_for
from muster.sandbox.state import Host


class Faults(Reach):
    """Hosts that go down and come back."""

    def _prepare(self, host: Host) -> None:
        network.plug(self.where.names, host, self.state.network)
        guest = self._machine(host)
        guest.mount()
        contents.furnish(self.where, host, self.hosts)

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
