"""Real hosts: booted, reached with strict host keys, rebooted, cut off, taken down without a trace."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.sandbox import Sandbox, network, simulated_gpus, state_file
from muster.sandbox.nspawn_host import cgroup_mounts
from tests.conftest import Boot

pytestmark = pytest.mark.sandbox


@pytest.fixture
def pair(sandbox: Boot) -> Iterator[Sandbox]:
    """Two hosts, made whole again after each test."""
    box = sandbox("hosts", hosts=2)
    yield box
    for host in box.hosts:
        box.heal(host.name)
        box.start(host.name)
        box.set_gpus(host.name, simulated_gpus.healthy(host.gpu, host.gpus))


def boot_id(box: Sandbox, host: str) -> str:
    # The kernel's own is the machine's; nspawn gives each boot of a host one of its own.
    return box.exec(host, ["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()


def pings(box: Sandbox, host: str, target: str) -> bool:
    return box.exec(host, ["ping", "-c1", "-W1", target], check=False).returncode == 0


def test_hosts_run_systemd_and_reach_each_other_by_name(pair: Sandbox) -> None:
    for host in pair.hosts:
        done = pair.ssh(host.name, ["hostname; systemctl is-system-running; cat /proc/1/comm"])
        assert done.stdout.split() == [host.name, "running", "systemd"], done.stderr
    assert pings(pair, "node0", "node1")
    assert pings(pair, "node1", "node0")


def test_the_host_keys_are_the_generated_ones_and_another_is_refused(pair: Sandbox, tmp_path: Path) -> None:
    first, second = pair.known_hosts.read_text().splitlines()
    swapped = tmp_path / "known_hosts"
    swapped.write_text(f"{first.split()[0]} {' '.join(second.split()[1:])}\n")
    argv = [word.replace(str(pair.known_hosts), str(swapped)) for word in pair.ssh_argv("node0")]
    done = subprocess.run([*argv, "true"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in done.stderr


def test_sessions_are_counted_one_per_command(pair: Sandbox) -> None:
    mark = pair.journal_cursor("node0")
    for _ in range(3):
        assert pair.ssh("node0", ["true"]).returncode == 0
    pair.exec("node0", ["true"])
    assert len(pair.ssh_sessions("node0", since=mark)) == 3


def test_hosts_see_their_own_network_only(pair: Sandbox) -> None:
    for host in pair.hosts:
        interfaces = pair.exec(host.name, ["ls", "/sys/class/net"]).stdout.split()
        assert sorted(interfaces) == ["fabric0", "lo"]
        addresses = pair.exec(host.name, ["ip", "-br", "-4", "address", "show", "fabric0"]).stdout
        assert f"{host.address}/24" in addresses


def test_a_fault_in_the_file_shows_on_that_host(pair: Sandbox) -> None:
    pair.set_gpus("node1", simulated_gpus.xid(simulated_gpus.mig(pair.gpus("node1"), 0), 0, 79))
    ask = ["nvidia-smi", "--query-gpu=mig.mode.current", "--format=csv,noheader"]
    assert pair.exec("node1", ask).stdout == "Enabled\n"
    assert pair.exec("node0", ask).stdout == "Disabled\n"
    for tool in (["dmesg"], ["journalctl", "-k", "--no-pager"]):
        assert "fallen off the bus" in pair.exec("node1", tool).stdout
        assert "fallen off the bus" not in pair.exec("node0", tool).stdout


def test_what_nvidia_smi_keeps_is_forgotten_when_the_file_changes(pair: Sandbox) -> None:
    ask = ["nvidia-smi", "--query-gpu=mig.mode.current", "--format=csv,noheader"]
    well = pair.gpus("node1")
    for gpus, expected in (
        (simulated_gpus.mig(well, 0), "Enabled\n"),
        (well, "Disabled\n"),
        (simulated_gpus.mig(well, 0), "Enabled\n"),
    ):
        pair.set_gpus("node1", gpus)
        assert [pair.exec("node1", ask).stdout for _ in range(3)] == [expected] * 3
    assert pair.exec("node1", ["/bin/sh", "-c", "ls /run/muster-sandbox"]).stdout
    pair.set_gpus("node1", simulated_gpus.command(well, "nvidia-smi", stderr="broken", exit=9))
    for _ in range(2):
        broken = pair.exec("node1", ask, check=False)
        assert (broken.returncode, broken.stderr) == (9, "broken")


def test_a_reboot_from_inside_brings_the_host_back(pair: Sandbox) -> None:
    before = boot_id(pair, "node0")
    pair.exec("node0", ["touch", "/root/kept", "/run/lost"])
    pair.reboot("node0")
    assert boot_id(pair, "node0") != before
    assert pair.exec("node0", ["ls", "/root/kept"]).returncode == 0
    assert pair.exec("node0", ["ls", "/run/lost"], check=False).returncode != 0
    assert pair.ssh("node0", ["true"]).returncode == 0
    assert pings(pair, "node0", "node1")


def test_a_host_without_power_is_silent_and_returns(pair: Sandbox) -> None:
    # A peer that talks to it hears nothing at all: no reset, no closed connection.
    script = "exec 3<>/dev/tcp/node1/22 && read -t 5 line <&3 && kill -0 $$ && echo open && timeout 3 cat <&3; echo $?"
    talk = subprocess.Popen(
        [*pair.ssh_argv("node0"), f"bash -c '{script}'"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert talk.stdout is not None
    assert talk.stdout.readline() == "open\n"
    pair.kill_power("node1")
    assert talk.stdout.readline() == "124\n", "the connection ended: node1's kernel closed it"
    talk.wait(timeout=30)
    talk.stdout.close()
    assert [row.running for row in pair.status()] == [True, False]
    assert not pings(pair, "node0", "node1")
    with pytest.raises(Refusal, match="switched off"):
        pair.netns("node1")
    pair.start("node1")
    assert pings(pair, "node0", "node1")


def test_a_power_off_from_inside_stays_off(pair: Sandbox) -> None:
    pair.ssh("node1", ["systemctl poweroff"])
    deadline = time.monotonic() + 60
    while pair.status()[1].running and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not pair.status()[1].running
    assert [row.running for row in Sandbox.find(pair.name).status()] == [True, False]


def test_a_pulled_cable_cuts_both_ways_and_heals(pair: Sandbox) -> None:
    pair.cut("node1")
    assert not pings(pair, "node0", "node1")
    assert not pings(pair, "node1", "node0")
    pair.heal("node1")
    assert pings(pair, "node0", "node1")


def test_a_one_way_cut_is_heard_in_one_direction_only(pair: Sandbox) -> None:
    pair.deafen("node1", "node0")
    try:
        assert not pings(pair, "node0", "node1")
        # What node1 sends still arrives: node0 learns of it, only the answers are lost.
        seen = pair.exec("node0", ["sh", "-c", "cat /proc/net/snmp | grep Icmp: | tail -1 | cut -d' ' -f2"])
        pings(pair, "node1", "node0")
        after = pair.exec("node0", ["sh", "-c", "cat /proc/net/snmp | grep Icmp: | tail -1 | cut -d' ' -f2"])
        assert int(after.stdout) == int(seen.stdout) + 1
    finally:
        pair.hear("node1")
    assert pings(pair, "node0", "node1")


def test_one_port_can_be_cut_and_the_rest_stays(pair: Sandbox) -> None:
    pair.deafen("node1", "node0", ports="22")
    try:
        assert pings(pair, "node0", "node1")
        reach = ["bash", "-c", "exec 3<>/dev/tcp/node1/22"]
        assert pair.exec("node0", ["timeout", "2", *reach], check=False).returncode == 124
        assert pair.ssh("node1", ["true"]).returncode == 0
    finally:
        pair.hear("node1")


def test_a_wiped_host_is_fresh_and_keeps_its_identity(pair: Sandbox) -> None:
    pair.exec("node1", ["touch", "/root/kept"])
    pair.wipe("node1")
    assert pair.exec("node1", ["ls", "/root/kept"], check=False).returncode != 0
    assert pair.ssh("node1", ["hostname"]).stdout == "node1\n"


def test_up_again_leaves_running_hosts_alone_and_adds_what_is_missing(pair: Sandbox) -> None:
    before = {row.host.name: row.pid for row in pair.status()}
    Sandbox.up(pair.name, 3)
    after = {row.host.name: row.pid for row in pair.status()}
    assert {name: after[name] for name in before} == before
    assert sorted(after) == ["node0", "node1", "node2"]
    assert pings(pair, "node0", "node2")


def test_hosts_reach_beyond_the_machine_as_the_machine_does(pair: Sandbox) -> None:
    # A host behind the machine's own way out: its gateway, which no host has a route to but through the machine.
    route = subprocess.run(["ip", "-4", "route", "show", "default"], capture_output=True, text=True, check=True)
    if not route.stdout.strip():
        pytest.fail("this machine has no default route, so nothing beyond it can be reached")
    own = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    outside = next(address for address in own if ":" not in address and not address.startswith("10.77."))
    assert pings(pair, "node0", outside)


def traces(name: str) -> dict[str, list[str]]:
    """Return everything on the machine that belongs to a sandbox."""
    where = state_file.place(name)
    token = where.names.bridge
    processes = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if int(entry.name) != os.getpid() and (
            f"--machine={token}" in command or f"{where.directory}/hosts" in command
        ):
            processes.append(command)
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return {
        "interfaces": [link.name for link in Path("/sys/class/net").glob(f"{token}*")],
        "namespaces": [space for space in network.namespaces() if space.startswith(token)],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(where.directory) in line],
        "groups": [str(path) for base in cgroup_mounts() for path in base.glob(f"muster-sandbox/{token}*")],
        "tables": [line for line in tables.splitlines() if token in line],
        "files": [str(where.directory)] if where.directory.exists() else [],
        "processes": processes,
    }


def test_down_leaves_no_trace_even_of_a_broken_sandbox(sandbox: Boot) -> None:
    box = sandbox("gone", hosts=2)
    before = traces(box.name)
    assert all(before.values()), before
    # Broken as after a crash: the loop of one host dead, the cable of another gone, the state file torn.
    loop = box._nspawn_host("node0").loop()
    assert loop is not None
    os.kill(loop, 9)
    subprocess.run(["ip", "link", "delete", box.where.names.veth(1)], check=True)
    box.where.state_file.write_text("{")
    box.down()
    assert traces(box.name) == {key: [] for key in before}
    box.down()


def test_up_repairs_what_a_crash_left(sandbox: Boot) -> None:
    box = sandbox("crashed", hosts=2)
    for row in box.status():
        loop = box._nspawn_host(row.host.name).loop()
        assert loop is not None
        os.kill(loop, 9)
    subprocess.run(["ip", "link", "delete", box.where.names.bridge], check=True)
    subprocess.run(["ip", "netns", "delete", box.where.names.machine("node1")], check=True)
    box = sandbox("crashed", hosts=2)
    assert [row.answers for row in box.status()] == [True, True]
    assert pings(box, "node0", "node1")
    assert box.ssh("node1", ["true"]).returncode == 0
