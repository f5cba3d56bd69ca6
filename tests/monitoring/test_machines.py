"""What monitored machines and the monitor get: packages, files, units."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.monitoring import machines
from muster.monitoring.watched import Watched
from muster.on_host import places
from muster.spec.settings import Settings
from tests import systemd_analyze
from tests.sample_plans import plan

GROUP = "kimi-k2-instruct"
SETTINGS = Settings(monitoring_retention_days=7)
WATCHED = Watched([(plan(GROUP, 2, "H200"), SETTINGS)])


def test_a_gpu_host_answers_its_monitors_alone() -> None:
    host = machines.gpu_host(SETTINGS, ["198.51.100.9", "2001:db8::9"], "print()")
    rules = host.early["/opt/muster/monitoring/firewall.nft"].text
    assert "tcp dport 9100 ip saddr { 198.51.100.9 } accept" in rules
    assert "tcp dport 9100 ip6 saddr { 2001:db8::9 } accept" in rules
    assert rules.index("accept") < rules.index("tcp dport 9100 counter drop")
    assert list(host.before_packages.units) == [machines.FIREWALL]
    assert "prometheus-node-exporter" in host.early["/etc/systemd/system/muster-metrics-firewall.service"].text


def test_prometheus_listens_on_loopback_and_keeps_what_is_asked() -> None:
    arguments = machines.monitor(WATCHED).early["/etc/default/prometheus"].text
    assert "--web.listen-address=127.0.0.1:9090 --storage.tsdb.retention.time=7d" in arguments


def test_secrets_are_closed_to_others() -> None:
    made = plan(GROUP, 2, "H200", api_key_file="/k")
    monitor = machines.monitor(Watched([(made, SETTINGS)]), api_keys={GROUP: "sk-1"}, alertmanager="route: {}")
    for path in (f"/etc/prometheus/muster/keys/{GROUP}", "/etc/prometheus/alertmanager.yml"):
        assert (monitor.files[path].mode, monitor.files[path].group) == ("640", "prometheus")
    assert "sk-1" not in monitor.files["/etc/prometheus/prometheus.yml"].text
    assert monitor.files["/etc/prometheus/alertmanager.yml"].text == "route: {}"


def test_certificates_need_the_blackbox_exporter() -> None:
    assert machines.BLACKBOX not in machines.monitor(WATCHED).packages
    with_https = Settings(monitoring_https=["https://api.example"])
    assert machines.BLACKBOX in machines.monitor(Watched([(plan(GROUP, 2, "H200"), with_https)])).packages
    edged = machines.monitor(WATCHED, edges={"edge-0": "198.51.100.30"})
    assert machines.BLACKBOX in edged.packages
    # The exporter reads it when its package starts it.
    assert "/etc/prometheus/muster/blackbox.yml" in edged.early


def test_a_host_may_be_both() -> None:
    both = machines.gpu_host(SETTINGS, ["198.51.100.1"], "") | machines.monitor(WATCHED)
    assert {"prometheus-node-exporter", "prometheus"} <= set(both.packages)
    assert {machines.FIREWALL, "prometheus.service"} <= set(both.units)


@pytest.mark.parametrize("unit", [machines.FIREWALL, places.MEASURE])
def test_units_are_as_hard_as_the_ranks(unit: str, tmp_path: Path) -> None:
    path = tmp_path / unit
    path.write_text(machines.gpu_host(SETTINGS, ["198.51.100.9"], "").early[f"/etc/systemd/system/{unit}"].text)
    assert systemd_analyze.exposure(path) <= 1.6
    assert systemd_analyze.complaints([path]) == []
