"""Firewalls on one host: those of others, and whether the kernel enforces the plan's own."""

from __future__ import annotations

from collections.abc import Iterator

from muster.plan.firewall import FIRST_EPHEMERAL
from muster.preflight.filters import Filter
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict, fail, ok, warn


def check(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    """Judge the filters; where hosts have met on the fabric, that meeting decides about firewalls of others."""
    filters = report.filters
    if isinstance(filters, Unreadable):
        return
    yield _foreign(filters.foreign, needs)
    if not needs.filtered:
        return
    if filters.nftables is None:
        yield ok("host.nftables", "the kernel takes the plan's table")
    else:
        fix = "install nftables, and boot a kernel with nf_tables (modprobe nf_tables; lsmod | grep nf_tables)"
        yield fail("host.nftables", filters.nftables, "nft, and a kernel that takes its tables", fix)
    if filters.ip_filter:
        fix = "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1) on a kernel with CONFIG_CGROUP_BPF"
        yield warn("host.ip_filter", filters.ip_filter, "IPAddressDeny= of the units enforced", fix)
    elif filters.ip_filter == "":
        yield ok("host.ip_filter", "enforced")
    if filters.first_port is not None and filters.first_port < FIRST_EPHEMERAL:
        found = f"the kernel picks ports from {filters.first_port} on"
        fix = f"sysctl -w net.ipv4.ip_local_port_range='{FIRST_EPHEMERAL} 60999', and the same in /etc/sysctl.d"
        yield warn("host.port_range", found, f"{FIRST_EPHEMERAL} or higher: what the plan's table covers", fix)
    elif filters.first_port is not None:
        yield ok("host.port_range", f"from {filters.first_port} on")


def _foreign(foreign: tuple[Filter, ...] | Unreadable, needs: Needs) -> Verdict:
    if isinstance(foreign, Unreadable):
        return ok("host.firewall", f"not read ({foreign.why})")
    if not foreign:
        return ok("host.firewall", "none that refuses connections")
    found = "; ".join(str(one) for one in foreign[:4])
    if needs.hosts < 2:
        return ok("host.firewall", f"{found}: open the API's port to your clients there")
    needed = "the group's hosts reach all TCP ports of each other"
    return warn("host.firewall", found, needed, "; ".join(one.fix for one in foreign[:4]))
