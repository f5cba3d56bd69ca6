"""Who may reach which port: every port of a group has a name and an audience."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.commands.plan_text import as_text
from muster.plan.firewall import reach as reach_in_words
from muster.plan.restart_decision import is_base
from tests import sample_plans


def reach(gpu: str, **settings: object) -> dict[str, dict[str, list[str]]]:
    """Host -> audience -> names of its ports."""
    plan = sample_plans.plan("kimi-k2-instruct", 2, gpu, **settings)
    return {
        name: {
            audience: [opening.name for opening in host.firewall.ports(audience)]
            for audience in ("clients", "monitors", "peers")
        }
        for name, host in plan.hosts.items()
    }


def test_clients_reach_the_api_of_the_head_and_nothing_else() -> None:
    found = reach("H200")
    assert found["h200-0"] == {"clients": ["port"], "monitors": ["control_port"], "peers": ["rpc_port"]}
    assert found["h200-1"] == {"clients": [], "monitors": [], "peers": []}


def test_ray_is_for_peers_alone() -> None:
    found = reach("H800")
    assert found["h800-0"]["clients"] == ["port"]
    assert "ray_port" in found["h800-0"]["peers"]
    assert "Ray's workers" in found["h800-1"]["peers"]
    assert found["h800-1"]["clients"] == found["h800-1"]["monitors"] == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "the group's own hosts (every port); no clients: client_networks is empty"),
        ({"client_networks": ["10.0.0.0/8"]}, "the group's own hosts (every port); 10.0.0.0/8 (the API)"),
    ],
)
def test_one_line_says_who_reaches_what(given: dict[str, list[str]], says: str) -> None:
    plan = sample_plans.plan("kimi-k2-instruct", 2, "H200", **given)
    assert reach_in_words(plan.head.firewall) == says
    assert says in as_text(plan)


def test_another_client_restarts_no_rank_while_the_engine_fetches() -> None:
    closed, opened = (sample_plans.plan("kimi-k2-instruct", 2, "H200", client_networks=c) for c in ([], ["10.0.0.0/8"]))
    path = closed.head.firewall.path
    assert is_base(path)
    assert closed.head.files[path] != opened.head.files[path]
    assert closed.digest == opened.digest


def test_a_ruleset_is_one_that_the_kernel_takes(tmp_path: Path) -> None:
    if os.geteuid() or not shutil.which("nft") or not shutil.which("unshare"):
        pytest.skip("needs root, nft and unshare")
    networks = ["0.0.0.0/0", "10.0.0.0/8", "2001:db8::/32"]
    for gpu in ("H200", "H800"):
        plan = sample_plans.plan(
            "kimi-k2-instruct", 2, gpu, client_networks=networks, monitor_networks=["192.0.2.1/32"]
        )
        for name, host in plan.hosts.items():
            text = host.files[host.firewall.path].text.replace('skuid "muster"', 'skuid "nobody"')
            (tmp_path / name).write_text(text)
            command = ["unshare", "--net", "nft", "--file", str(tmp_path / name)]
            seen = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (seen.returncode, seen.stdout + seen.stderr) == (0, "")


@pytest.mark.parametrize("gpu", ["H200", "H800"])
def test_every_port_that_a_host_binds_has_an_audience(gpu: str) -> None:
    plan = sample_plans.plan("kimi-k2-instruct", 2, gpu, client_networks=["192.0.2.0/24"])
    for host in plan.hosts.values():
        named = {port for opening in host.firewall.openings for port in range(opening.first, opening.last + 1)}
        assert set(host.ports) <= named
        assert host.firewall.clients == ("192.0.2.0/24",)
        assert host.firewall.peers == ("198.51.100.1", "198.51.100.2")


PORTS = {"the API": 8000, "control": 29600, "rpc": 29550, "picked by the kernel": 45678}
FOREIGN = 45679
SOURCES = {
    "peer": "198.51.100.2",
    "client": "198.51.100.201",
    "stranger": "198.51.100.202",
    "client over IPv6": "2001:db8::c",
    "stranger over IPv6": "2001:db8::d",
}


@pytest.fixture
def spaces(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: a host behind its ruleset, and everybody else."""
    if os.geteuid() or not shutil.which("nft") or not shutil.which("setpriv"):
        pytest.skip("needs root, nft and setpriv")
    host, others = (f"fw{os.getpid()}{side}" for side in "ab")
    plan = sample_plans.plan("kimi-k2-instruct", 2, "H200", client_networks=["198.51.100.201/32", "2001:db8::c/128"])
    text = plan.head.files[plan.head.firewall.path].text
    (tmp_path / "rules").write_text(text.replace('skuid "muster"', 'skuid "nobody"'))
    servers = []
    try:
        for line in (
            f"netns add {host}",
            f"netns add {others}",
            f"link add cable netns {host} type veth peer name cable netns {others}",
            *(f"-n {space} link set {link} up" for space in (host, others) for link in ("lo", "cable")),
            f"-n {host} address add 198.51.100.1/24 dev cable",
            f"-n {host} address add 2001:db8::1/64 dev cable nodad",
            *(f"-n {others} address add {a}/24 dev cable" for a in SOURCES.values() if "." in a),
            *(f"-n {others} address add {a}/64 dev cable nodad" for a in SOURCES.values() if ":" in a),
            f"netns exec {host} nft --file {tmp_path}/rules",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        for port in (*PORTS.values(), FOREIGN):
            who = [] if port == FOREIGN else ["setpriv", "--reuid=nobody", "--clear-groups"]
            serve = [*who, sys.executable, "-m", "http.server", "--bind", "::", str(port)]
            servers.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", host, *serve],
                    cwd="/",
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        yield host, others
    finally:
        for server in servers:
            server.kill()
            server.wait()
        for space in (host, others):
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)


def test_the_kernel_lets_in_who_is_named_and_nobody_else(spaces: tuple[str, str]) -> None:
    host, others = spaces
    program = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[2], int(sys.argv[3])), 0.4, (sys.argv[1], 0))\n"
        "except OSError: sys.exit(1)\n"
    )

    def reached(space: str, source: str, port: int) -> bool:
        target = "2001:db8::1" if ":" in source else "198.51.100.1"
        command = ["ip", "netns", "exec", space, sys.executable, "-c", program, source, target, str(port)]
        return subprocess.run(command, check=False).returncode == 0

    deadline = time.monotonic() + 20
    while not all(reached(host, "198.51.100.1", port) for port in (*PORTS.values(), FOREIGN)):
        assert time.monotonic() < deadline, "the servers do not listen"
    found = {who: [name for name, port in PORTS.items() if reached(others, at, port)] for who, at in SOURCES.items()}
    assert found == {
        "peer": list(PORTS),
        "client": ["the API"],
        "stranger": [],
        "client over IPv6": ["the API"],
        "stranger over IPv6": [],
    }
    assert all(reached(others, at, FOREIGN) for at in SOURCES.values())  # nobody else's sockets are muster's to close
