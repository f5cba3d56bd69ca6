"""What a test does to a sandbox's hosts: reboot, cut the power, pull the cable, replace the disk."""

from __future__ import annotations

import shutil

from muster.sandbox import contents, network
from muster.sandbox.reach import BOOT_SECONDS, Reach
from muster.sandbox.shell import wait_for
from muster.sandbox.state_file import Host


class Faults(Reach):
    """Hosts that go down and come back."""

    def _prepare(self, host: Host) -> None:
        network.plug(self.where.names, host, self.state.network)
        target = self._nspawn_host(host)
        target.mount()
        contents.furnish(self.where, host, self.hosts)

    def reboot(self, host: str, *, wait: bool = True, timeout: float = BOOT_SECONDS) -> None:
        """Reboot a host from inside, in order; with `wait`, return when it is up again."""
        before = self._nspawn_host(host).init()
        self.exec(host, ["systemctl", "reboot", "--no-block"])
        if wait:
            target = self._nspawn_host(host)
            wait_for(f"shutdown of {host}", lambda: target.init() != before, timeout=timeout)
            self.wait_up(host, timeout)

    def kill_power(self, host: str) -> None:
        """Cut a host's power: its cable goes dead first, so that its peers see silence and no reset."""
        network.carrier(self.where.names, self.state.host(host), up=False)
        self._nspawn_host(host).power_off()

    def start(self, host: str, *, wait: bool = True) -> None:
        """Switch a host on again; nothing happens to one that runs."""
        network.plug(self.where.names, self.state.host(host), self.state.network)
        self._nspawn_host(host).start()
        if wait:
            self.wait_up(host)

    def wipe(self, host: str) -> None:
        """Replace a host by a fresh one of the same name, address and host key, as after a new disk."""
        replaced = self.state.host(host)
        self.kill_power(host)
        target = self._nspawn_host(host)
        target.unmount()
        for part in ("upper", "work"):
            shutil.rmtree(target.directory / part, ignore_errors=True)
        self._prepare(replaced)
        self.start(host)

    def cut(self, host: str) -> None:
        """Pull a host's network cable."""
        network.carrier(self.where.names, self.state.host(host), up=False)

    def heal(self, host: str) -> None:
        """Put a host's network cable back."""
        network.carrier(self.where.names, self.state.host(host), up=True)

    def deafen(self, host: str, *others: str, ports: str = "") -> None:
        """Let a host hear nothing from some others, while they still hear it; replaces an earlier deafening.

        Args:
            host: the one that no longer hears.
            others: names of hosts.
            ports: TCP ports as nftables writes them ("8000", "20000-65535"); all traffic when empty.
        """
        addresses = ", ".join(self.state.host(other).address for other in others)
        match = f"ip saddr {{ {addresses} }}" + (f" tcp dport {{ {ports} }}" if ports else "")
        self.hear(host)
        rules = f"""\
table ip muster-deaf {{
  chain in {{
    type filter hook input priority 0; policy accept;
    {match} drop
  }}
}}
"""
        self.in_network(host, ["nft", "-f", "-"], stdin=rules)

    def hear(self, host: str) -> None:
        """Undo `deafen`."""
        replace = "add table ip muster-deaf\ndelete table ip muster-deaf\n"
        self.in_network(host, ["nft", "-f", "-"], stdin=replace)
