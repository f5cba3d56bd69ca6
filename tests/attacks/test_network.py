"""Who reaches which port: a client the API, a stranger nothing, peers all; ports of others are left alone."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.deploys.conftest import GROUP, GUARD_UNIT, HOSTS, GuardedTestbed

pytestmark = pytest.mark.sandbox

API, CONTROL, PICKED, FOREIGN = 8000, 29600, 45678, 45679
LISTEN = "setsid {who} python3 -m http.server --bind 0.0.0.0 {port} >/dev/null 2>&1 </dev/null &"


def reaches(host: str, port: int, source: str) -> bool:
    """Whether a connection from one of this machine's addresses is answered."""
    try:
        with socket.create_connection((host, port), timeout=1.5, source_address=(source, 0)):
            return True
    except OSError:
        return False


@pytest.fixture
def sources(guarded: GuardedTestbed) -> Iterator[tuple[str, str]]:
    """Two more addresses of this machine in the sandbox's network: a client's and a stranger's."""
    prefix, bridge = guarded.box.hosts[0].address.rsplit(".", 1)[0], guarded.box.where.names.bridge
    made = tuple(f"{prefix}.{last}" for last in (201, 202))
    for address in made:
        subprocess.run(["ip", "address", "replace", f"{address}/24", "dev", bridge], check=True)
    yield made[0], made[1]
    for address in made:
        subprocess.run(["ip", "address", "delete", f"{address}/24", "dev", bridge], check=False)


def test_a_client_reaches_the_api_alone_and_a_stranger_nothing(
    guarded: GuardedTestbed, sources: tuple[str, str]
) -> None:
    client, stranger = sources
    head, member = (host.address for host in guarded.box.hosts[:2])
    given = {"client_networks": [f"{client}/32"], "monitor_networks": []}
    guarded.deploy(**given)
    lives = {name: guarded.life(name, GUARD_UNIT) for name in HOSTS}
    for name in HOSTS:
        guarded.sh(name, LISTEN.format(who="runuser -u muster --", port=PICKED))
        guarded.sh(name, LISTEN.format(who="", port=FOREIGN))
    guarded.wait("listeners", lambda: "45679" in guarded.sh("node1", "ss -Htln"), 20)
    ports = (API, CONTROL, PICKED)
    try:
        assert [reaches(head, port, client) for port in ports] == [True, False, False]
        assert [reaches(member, port, client) for port in ports] == [False, False, False]
        assert [reaches(host, port, stranger) for host in (head, member) for port in ports] == [False] * 6
        # What is not the engine's is not muster's to close.
        assert [reaches(host, FOREIGN, stranger) for host in (head, member)] == [True, True]
        for port in ports:
            guarded.sh("node1", f"python3 -c 'import socket; socket.create_connection((\"{head}\", {port}), 3)'")
    finally:
        for name in HOSTS:
            guarded.sh(name, "pkill -f '[h]ttp.server --bind' || true")
    # More clients are admitted while the ranks run on.
    guarded.deploy(client_networks=[f"{client}/32", f"{stranger}/32"], monitor_networks=[])
    assert reaches(head, API, stranger)
    assert {name: guarded.life(name, GUARD_UNIT) for name in HOSTS} == lives
    # No rank runs without its firewall: who stops it stops them, and then no table is left.
    guarded.sh("node0", f"systemctl stop muster-firewall@{GROUP}")
    assert guarded.sh("node0", f"systemctl is-active {GUARD_UNIT} || true") == "inactive"
    assert guarded.sh("node0", f"nft list table inet muster-{GROUP} 2>/dev/null || echo gone") == "gone"


def test_ranks_do_not_start_without_their_firewall(guarded: GuardedTestbed) -> None:
    guarded.sh("node1", f"systemctl stop muster-firewall@{GROUP}; echo 'no ruleset' >/etc/muster/{GROUP}/firewall.nft")
    guarded.sh("node1", f"systemctl start muster-{GROUP} 2>/dev/null || true")
    assert guarded.sh("node1", f"systemctl is-active muster-{GROUP} || true") != "active"
    guarded.deploy()
    assert guarded.sh("node1", f"systemctl is-active muster-{GROUP} muster-firewall@{GROUP}") == "active\nactive"
