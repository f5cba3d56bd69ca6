"""The sandbox's network: a bridge, a network namespace and cable per host, and a way out through the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muster.errors import Refusal
from muster.sandbox.names import INTERFACE, Names, gateway, mac
from muster.sandbox.shell import attempt, run, wait_for
from muster.sandbox.state_file import Host

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_FORWARD_WAS_OFF = Path("/run/muster-sandbox.ip-forward-was-off")


def networks_in_use() -> list[str]:
    """Return every IPv4 network that this machine has an address in or a route to."""
    used = []
    for link in _json(["ip", "-j", "-4", "address"]):
        used += [f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", [])]
    used += [r["dst"] for r in _json(["ip", "-j", "-4", "route"]) if r["dst"] != "default"]
    return used


def _json(argv: list[str]) -> list[dict[str, Any]]:
    return list(json.loads(run(argv) or "[]"))


def exists(interface: str) -> bool:
    """Whether the machine has a network interface of that name."""
    return Path("/sys/class/net", interface).exists()


def open_network(names: Names, network: str) -> None:
    """Make the bridge and the way out, or repair what is left of them; harmless when all is there."""
    if not exists(names.bridge):
        run(["ip", "link", "add", names.bridge, "type", "bridge"])
    run(["ip", "address", "replace", f"{gateway(network)}/24", "dev", names.bridge])
    run(["ip", "link", "set", names.bridge, "up"])
    if _FORWARD.read_text().strip() == "0":
        _FORWARD_WAS_OFF.touch()
        _FORWARD.write_text("1")
    # Deleting first makes the batch replace a table left by an earlier life.
    table = f"""\
add table ip {names.bridge}
delete table ip {names.bridge}
table ip {names.bridge} {{
  chain out {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {network} ip daddr != {network} masquerade
  }}
}}
"""
    run(["nft", "-f", "-"], stdin=table)
    _pass_foreign_firewall(names)


def _pass_foreign_firewall(names: Names) -> None:
    # A container engine's rules drop what they do not know; an accept elsewhere does not overrule a drop.
    _leave_foreign_firewall(names)
    if attempt(["nft", "list", "chain", "ip", "filter", "FORWARD"]).returncode == 0:
        for side in ("iifname", "oifname"):
            rule = f'insert rule ip filter FORWARD {side} "{names.bridge}" accept comment "{names.bridge}"'
            run(["nft", "-f", "-"], stdin=rule + "\n")


def _leave_foreign_firewall(names: Names) -> None:
    listing = attempt(["nft", "-a", "list", "chain", "ip", "filter", "FORWARD"])
    for line in listing.stdout.splitlines():
        if f'"{names.bridge}"' in line and "# handle" in line:
            run(["nft", "delete", "rule", "ip", "filter", "FORWARD", "handle", line.rsplit(None, 1)[1]])


def namespaces() -> set[str]:
    """Return the names of the machine's named network namespaces."""
    return {line.split()[0] for line in run(["ip", "netns", "list"]).splitlines() if line.split()}


def plug(names: Names, host: Host, network: str) -> None:
    """Give a host its network namespace, cable, address and route; replaces a half-made one."""
    space, cable = names.machine(host.name), names.veth(host.index)
    if space in namespaces() and exists(cable):
        # A recreated bridge has lost its cables.
        run(["ip", "link", "set", cable, "master", names.bridge])
        return
    unplug(names, host)
    run(["ip", "netns", "add", space])
    inside = ["ip", "-n", space]
    run(["ip", "link", "add", cable, "type", "veth", "peer", "name", INTERFACE, "netns", space])
    run(["ip", "link", "set", cable, "master", names.bridge, "up"])
    run([*inside, "link", "set", INTERFACE, "address", mac(host.address)])
    run([*inside, "address", "add", f"{host.address}/24", "dev", INTERFACE])
    run([*inside, "link", "set", "lo", "up"])
    run([*inside, "link", "set", INTERFACE, "up"])
    run([*inside, "route", "add", "default", "via", gateway(network)])


def unplug(names: Names, host: Host) -> None:
    """Take a host's cable and network namespace away; nothing happens when they are gone."""
    if exists(names.veth(host.index)):
        run(["ip", "link", "delete", names.veth(host.index)])
    if names.machine(host.name) in namespaces():
        run(["ip", "netns", "delete", names.machine(host.name)])


def carrier(names: Names, host: Host, *, up: bool) -> None:
    """Connect or pull a host's cable at the machine's end: its peers see silence, no reset."""
    if not exists(names.veth(host.index)):
        raise Refusal(f"the cable of host {host.name} is gone", fix="muster sandbox up")
    link = Path("/sys/class/net", names.veth(host.index))
    run(["ip", "link", "set", link.name, "up" if up else "down"])
    if up:
        # The bridge forwards once the kernel has noticed the other end, which can take a second; 3: forwarding.
        wait_for(f"cable of {host.name}", lambda: (link / "brport/state").read_text() == "3\n", timeout=60)


def close_network(names: Names) -> None:
    """Remove the bridge, every cable and namespace of this sandbox, and its firewall table."""
    for space in namespaces():
        if space.startswith(names.machine("")):
            run(["ip", "netns", "delete", space])
    for link in Path("/sys/class/net").glob(f"{names.bridge}*"):
        attempt(["ip", "link", "delete", link.name])
    attempt(["nft", "delete", "table", "ip", names.bridge])
    _leave_foreign_firewall(names)
    if _FORWARD_WAS_OFF.exists() and not any(Path("/sys/class/net").glob("mst*")):
        _FORWARD.write_text("0")
        _FORWARD_WAS_OFF.unlink(missing_ok=True)
