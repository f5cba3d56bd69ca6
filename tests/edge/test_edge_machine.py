"""What an edge host gets beside HAProxy's own files: who may read its metrics."""

from __future__ import annotations

from pathlib import Path

from muster.edge.edge_machine import DROP_IN, FIREWALL, edge_machine
from muster.edge.edge_plan import edge_plan
from muster.spec.settings import Edge
from tests import systemd_analyze
from tests.edge.test_edge_plan import group

NETWORKS = ("198.51.100.0/24", "198.51.100.9", "2001:db8::9")
MACHINE = edge_machine(edge_plan([group(monitor_networks=NETWORKS)], Edge()), "certificate", {})


def test_monitor_networks_alone_reach_the_port_for_operators() -> None:
    rules = MACHINE.files["/etc/haproxy/muster/firewall.nft"].text
    # nftables refuses overlapping elements of one set.
    assert "tcp dport 8405 ip saddr { 198.51.100.0/24 } accept" in rules
    assert "tcp dport 8405 ip6 saddr { 2001:db8::9 } accept" in rules
    assert rules.index("accept") < rules.index("tcp dport 8405 counter drop")
    assert next(iter(MACHINE.units)) == FIREWALL.unit


def test_clients_are_served_without_the_firewall() -> None:
    unit = MACHINE.files[f"/etc/systemd/system/{FIREWALL.unit}"].text
    assert "RequiredBy" not in unit
    assert "Before=haproxy.service" in unit


def test_haproxy_keeps_its_memory_from_its_first_start_on_and_is_not_cut_for_it() -> None:
    assert DROP_IN in MACHINE.before_packages.early
    assert "\n[Service]\nEnvironment=MALLOC_MMAP_THRESHOLD_=33554432\n" in MACHINE.early[DROP_IN].text
    assert DROP_IN not in MACHINE.units["haproxy.service"]


def test_its_unit_is_hard(tmp_path: Path) -> None:
    path = tmp_path / FIREWALL.unit
    path.write_text(MACHINE.files[f"/etc/systemd/system/{FIREWALL.unit}"].text)
    assert systemd_analyze.exposure(path) <= 1.6
    assert systemd_analyze.complaints([path]) == []
