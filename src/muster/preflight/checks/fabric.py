"""The fabric interface of one host; `pairs` judges the way between two."""

from __future__ import annotations

from collections.abc import Iterator

from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.tool_text import NetworkLink, Unreadable
from muster.preflight.verdict import Verdict, fail, ok


def link_of(report: HostReport, address: str | None) -> NetworkLink | None:
    """Return the interface that carries an address."""
    links = () if isinstance(report.links, Unreadable) else report.links
    return next((link for link in links if address in link.addresses), None)


def check(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    """Judge the address that peers use and the interface it is on."""
    if needs.address is None:
        return
    wanted = needs.address + (f" on {needs.interface}" if needs.interface else "")
    fix = "correct fabric_address or fabric_interface in the inventory (ip -br addr shows what is there)"
    if isinstance(report.links, Unreadable):
        yield fail("fabric.address", report.links.why, wanted, "install iproute2")
        return
    link = link_of(report, needs.address)
    if link is None:
        held = "; ".join(f"{one.name}: {', '.join(one.addresses)}" for one in report.links if one.addresses)
        yield fail("fabric.address", f"not on this host; it has {held[:300] or 'no address'}", wanted, fix)
        return
    if needs.interface and link.name != needs.interface:
        # Without the address, so that the same text on many hosts prints once.
        yield fail("fabric.address", f"the fabric address is on {link.name}", f"on {needs.interface}", fix)
        return
    yield ok("fabric.address", f"{needs.address} on {link.name}")
    if link.up:
        yield ok("fabric.link", f"{link.name} up, MTU {link.mtu}")
    else:
        yield fail("fabric.link", f"{link.name} is down", "up", f"ip link set {link.name} up; check the cable")
