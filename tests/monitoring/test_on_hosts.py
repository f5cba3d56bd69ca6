"""A real Prometheus on a machine of its own watches a real group: what it scrapes, what real faults raise."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from tests.conftest import Boot
from tests.deploys.conftest import GROUP, HOSTS

from .monitored import MONITOR, PATIENCE, Monitored
from .test_dashboards import BOARDS, panels

pytestmark = pytest.mark.sandbox

NOT_SIMULATED = {("hosts.json", "NVLink errors")}
"""Panels without data here: the sandbox's nvidia-smi has no counters of link errors."""
OF_THE_EDGE = {("fleet.json", name) for name in ("Endpoints up", "Answers to clients", "Requests waiting at the edge")}
"""There is none here: `test_edge_on_hosts` has one."""


@pytest.fixture(scope="module")
def monitored(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> Monitored:
    """A group that serves and is watched; one test leaves it to the next."""
    there = Monitored(sandbox("monitoring", 3), tmp_path_factory.mktemp("monitored"))
    there.bring_up()
    return there


def test_every_target_is_scraped_and_a_second_run_changes_nothing(monitored: Monitored) -> None:
    expected = {
        ("muster-guard", "node0"),
        ("muster-engine", "node0"),
        ("muster-node", "node0"),
        ("muster-node", "node1"),
    }
    assert monitored.targets() == expected
    again = monitored.run("monitoring", "-y", "--dry", "--json")
    assert (again.status, again.changes) == (0, {}), again.text
    assert monitored.query(f'muster_ready{{group="{GROUP}"}}')[0][1] == 1
    assert {labels["host"] for labels, _ in monitored.query("muster_driver_info")} == set(HOSTS)
    assert monitored.told() == set()


def test_every_panel_of_the_dashboards_has_data(monitored: Monitored) -> None:
    began = time.monotonic()
    while time.monotonic() - began < 8:  # rates need load
        assert monitored.answers(rank=0, tokens=4)
        assert monitored.answers(rank=1, tokens=4)
    empty = []
    for name, board in BOARDS.items():
        for panel in panels(board):
            for target in panel["targets"]:
                text = target["expr"].replace("$__rate_interval", "30s").replace("$group", GROUP).replace("$host", ".*")
                values = [value for _, value in monitored.query(text)]
                if not any(math.isfinite(value) for value in values):
                    empty.append((name, panel["title"]))
    assert set(empty) == NOT_SIMULATED | OF_THE_EDGE


def test_only_the_monitor_reads_a_host_and_nobody_the_monitor(monitored: Monitored) -> None:
    address = {host.name: host.address for host in monitored.box.hosts}

    def reaches(source: str, host: str, port: int) -> bool:
        script = f"timeout 2 python3 -c 'import socket; socket.create_connection((\"{address[host]}\", {port}))'"
        return monitored.sh(source, f"{script} 2>/dev/null && echo yes || echo no") == "yes"

    assert reaches(MONITOR, "node1", 9100)
    assert not reaches("node0", "node1", 9100)
    assert not reaches("node0", MONITOR, 9090)
    assert not reaches("node0", MONITOR, 9093)


def test_a_bad_file_is_refused_before_one_is_written(monitored: Monitored, tmp_path: Path) -> None:
    (tmp_path / "alertmanager.yml").write_text("route: {receiver: nobody}\n")
    before = monitored.sh(MONITOR, "sha256sum /etc/prometheus/alertmanager.yml")
    ran = monitored.run("monitoring", "-y", monitoring_alertmanager_file=str(tmp_path / "alertmanager.yml"))
    assert ran.status != 0
    assert 'undefined receiver "nobody"' in ran.text
    assert monitored.sh(MONITOR, "sha256sum /etc/prometheus/alertmanager.yml") == before


@pytest.mark.nightly
def test_a_deliberate_stop_and_start_raise_nothing(monitored: Monitored) -> None:
    began = time.monotonic()
    monitored.done("stop")
    time.sleep(PATIENCE + 5)
    monitored.done("resume")
    monitored.wait("ready", monitored.ready)
    assert monitored.fired(time.monotonic() - began) == set()


def test_a_killed_engine_is_told_as_a_restart(monitored: Monitored) -> None:
    monitored.sh("node1", "pkill -KILL -f '^VLLM::EngineCore'")
    monitored.wait("an alert", lambda: monitored.told() != set(), 30)
    assert monitored.told() == {("MusterGroupRestarted", "node0")}
    monitored.wait("ready", monitored.ready)


@pytest.mark.nightly
def test_an_engine_that_dies_again_and_again_is_a_loop(monitored: Monitored) -> None:
    monitored.done("resume")  # counts no failure of before
    for _ in range(3):
        monitored.wait("ready", monitored.ready)
        monitored.sh("node1", "pkill -KILL -f '^VLLM::EngineCore'")
        monitored.wait("the end of the generation", lambda: not monitored.ready(), 30)
    monitored.wait("ready", monitored.ready)
    monitored.wait("the loop's alert", lambda: monitored.told() == {("MusterRestartLoop", "node0")}, 60)
    monitored.done("resume")
    monitored.wait("its end", lambda: ("MusterRestartLoop", "node0") not in monitored.told(), 60)


@pytest.mark.nightly
def test_a_host_without_power_is_missing_until_it_is_back(monitored: Monitored) -> None:
    monitored.done("resume")
    monitored.box.kill_power("node1")
    monitored.wait("the alert", lambda: ("MusterHostMissing", "node1") in monitored.told(), 90)
    time.sleep(PATIENCE)  # long enough for whatever follows from it
    assert monitored.told() == {("MusterHostMissing", "node1")}
    monitored.box.start("node1")
    monitored.wait("its end", lambda: ("MusterHostMissing", "node1") not in monitored.told(), 90)
    monitored.wait("ready", monitored.ready)


@pytest.mark.nightly
def test_a_certificate_is_told_before_and_after_its_end(monitored: Monitored) -> None:
    """A listener with TLS on a host of the group; the monitor trusts who signed its certificates."""
    monitored.done("resume")
    address = monitored.box.hosts[0].address
    place, new = "/root/tls", "openssl req -newkey rsa:2048 -nodes -keyout"
    monitored.sh("node0", f"mkdir -p {place}; cd {place}; {new} ca.key -x509 -out ca.pem -days 30 -subj /CN=ca")
    monitored.sh("node0", f"cd {place}; {new} key.pem -out csr.pem -subj /CN=node0 -addext subjectAltName=IP:{address}")
    store = "/usr/local/share/ca-certificates"
    trust = f"mkdir -p {store}; cat >{store}/tests.crt; update-ca-certificates"
    authority = monitored.sh("node0", f"cat {place}/ca.pem")
    monitored.box.exec(MONITOR, ["/bin/sh", "-c", trust], stdin=authority + "\n")

    def serve(days: int) -> None:
        sign = f"openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -copy_extensions copy -days {days} -out c.pem"
        listen = f"openssl s_server -www -accept 8443 -cert {place}/c.pem -key {place}/key.pem"
        monitored.sh("node0", f"cd {place}; {sign}; systemctl stop tls; systemd-run --quiet --unit=tls {listen}")

    try:
        serve(days=3)
        monitored.done("monitoring", monitoring_https=[f"https://{address}:8443/"])
        told = {("MusterCertificateExpiring", "")}
        monitored.wait("the alert", lambda: monitored.told() == told, PATIENCE + 60)
        serve(days=-1)  # has ended: the exporter refuses it, and knows its end no more
        monitored.wait("a failed probe", lambda: [value for _, value in monitored.query("probe_success")] == [0], 30)
        time.sleep(2 * PATIENCE)
        assert monitored.told() == told
        serve(days=90)
        monitored.wait("its end", lambda: monitored.told() == set(), 60)
    finally:
        monitored.sh("node0", f"systemctl stop tls; rm -r {place}")
        monitored.done("monitoring")


@pytest.mark.nightly
def test_removal_takes_what_monitoring_made_on_the_groups_hosts(monitored: Monitored) -> None:
    ran = monitored.run("remove", "-y", "--data", "_everything=true")
    assert ran.status == 0, ran.text
    places = "/etc/systemd/system/muster-* /opt/muster /run/muster-metrics"
    for host in HOSTS:
        assert monitored.sh(host, f"ls -d {places} 2>/dev/null || true") == ""
        assert "muster" not in monitored.sh(host, "nft list tables")
