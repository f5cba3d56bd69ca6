"""Every way in that a fleet uses works, or is refused in words that lead to the fix (reported: st2#2746, pyinfra#569,
pyinfra#1850, ci-infra#950)."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muster.sandbox import Sandbox
from tests.conftest import Boot

pytestmark = pytest.mark.sandbox

MUSTER = str(Path(sys.executable).parent / "muster")
PASSWORD = "correct horse"
CONFIG = """\
Host hop
  HostName {hop}
  User root
Host alias via-jump via-command
  HostName {target}
  User root
Host ops
  HostName {target}
  User ops
Host via-jump
  ProxyJump hop
Host via-command
  ProxyCommand ssh -F {config} -W %h:%p hop
Host *
  IdentityFile {key}
  UserKnownHostsFile {known}
"""
INVENTORY = """\
hosts = (
    [({name!r}, {data!r})],
    {{"gpu": "H200", "gpus": 1, "rdma": "off", "fabric_address": {address!r}, "fabric_interface": "fabric0"}},
)
"""


@dataclass
class Ways:
    """A host behind another one, and what `muster preflight` says of it by each way in."""

    box: Sandbox
    directory: Path

    def inventory(self, name: str, **data: object) -> Path:
        path = self.directory / "inventory.py"
        given = {"ssh_config_file": str(self.directory / "config"), "ssh_strict_host_key_checking": "yes", **data}
        address = self.box.state.host("node1").address
        path.write_text(INVENTORY.format(name=name, data=given, address=address))
        return path

    def preflight(self, name: str, **data: object) -> tuple[int, dict[str, Any], str]:
        """Return exit status, the verdict of `host.reached`, and what was printed on standard error."""
        command = [MUSTER, "preflight", str(self.inventory(name, **data)), "--no-pairs", "--format", "json"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert "Traceback" not in ran.stderr + ran.stdout
        verdicts = json.loads(ran.stdout)["verdicts"] if ran.stdout.startswith("{") else []
        return ran.returncode, next((v for v in verdicts if v["check"] == "host.reached"), {}), ran.stderr


@pytest.fixture(scope="module")
def ways(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    box, directory = sandbox("ssh"), tmp_path_factory.mktemp("ssh")
    key, known = Path(box.key), Path(box.known_hosts)
    config = directory / "config"
    names = {"hop": box.state.host("node0").address, "target": box.state.host("node1").address}
    config.write_text(CONFIG.format(**names, config=config, key=key, known=known))
    box.exec("node1", ["/bin/sh", "-ec", f"""
        command -v sudo >/dev/null || {{ apt-get -qq update; apt-get -qq install -y --no-install-recommends sudo; }}
        id ops 2>/dev/null || useradd -m -s /bin/bash ops
        mkdir -p ~ops/.ssh && cp ~root/.ssh/authorized_keys ~ops/.ssh/ && chown -R ops: ~ops/.ssh
        echo 'ops:{PASSWORD}' | chpasswd && usermod -aG sudo ops
        """])  # fmt: skip
    return Ways(box, directory)


@pytest.mark.parametrize("name", ["alias", "via-jump", "via-command"])
def test_what_the_ssh_configuration_names_is_reached(ways: Ways, name: str) -> None:
    status, reached, _ = ways.preflight(name)
    assert (status, reached["level"]) == (0, "ok")


def test_another_port_is_reached(ways: Ways) -> None:
    ways.box.exec("node1", ["/bin/sh", "-ec", ("echo 'Port 22\nPort 2222' >/etc/ssh/sshd_config.d/port.conf; "
                                              "systemctl reload ssh")])  # fmt: skip
    try:
        key = next(line for line in Path(ways.box.known_hosts).read_text().splitlines()
                   if ways.box.state.host("node1").address in line)  # fmt: skip
        known = ways.directory / "known"
        address = ways.box.state.host("node1").address
        known.write_text(f"{key}\n[{address}]:2222 {key.partition(' ')[2]}\n")
        status, reached, _ = ways.preflight("alias", ssh_port=2222, ssh_known_hosts_file=str(known))
        assert (status, reached["level"]) == (0, "ok"), reached
    finally:
        ways.box.exec("node1", ["/bin/sh", "-c", "rm /etc/ssh/sshd_config.d/port.conf; systemctl reload ssh"])


def test_sudo_with_a_password_that_is_given(ways: Ways) -> None:
    status, reached, _ = ways.preflight("ops", _sudo=True, _sudo_password=PASSWORD)
    assert (status, reached["level"]) == (0, "ok")


def test_sudo_with_a_password_typed_at_a_terminal(ways: Ways) -> None:
    command = [MUSTER, "preflight", str(ways.inventory("ops", _sudo=True)), "--no-pairs"]
    child, terminal = pty.fork()
    if not child:
        os.execv(command[0], command)
    printed, typed, deadline = "", False, time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                try:
                    printed += os.read(terminal, 4096).decode(errors="replace")
                except OSError:
                    break
            if "password:" in printed and not typed:
                os.write(terminal, f"{PASSWORD}\n".encode())
                typed = True
    finally:
        _, status = os.waitpid(child, 0)
    assert typed, printed
    assert os.waitstatus_to_exitcode(status) == 0, printed


def test_sudo_without_a_password_set_up(ways: Ways) -> None:
    ways.box.exec("node1", ["/bin/sh", "-c", "echo 'ops ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/ops"])
    try:
        status, reached, _ = ways.preflight("ops", _sudo=True)
        assert (status, reached["level"]) == (0, "ok")
    finally:
        ways.box.exec("node1", ["rm", "/etc/sudoers.d/ops"])


@pytest.mark.parametrize(
    ("data", "found", "fix"),
    [
        ({"_sudo": True}, "EOFError", "NOPASSWD"),
        ({"_sudo": True, "_sudo_password": "wrong"}, "incorrect password", "_sudo_password"),
    ],
)
def test_sudo_that_cannot_work_is_told_from_ssh(ways: Ways, data: dict[str, object], found: str, fix: str) -> None:
    status, reached, _ = ways.preflight("ops", **data)
    assert (status, reached["level"]) == (1, "fail")
    assert found in reached["found"]
    assert fix in reached["fix"]


@pytest.mark.parametrize(
    ("known", "fix"),
    [("", "compare the key's fingerprint"), ("{address} ssh-ed25519 {other}\n", "find out why the key changed")],
)
def test_a_host_key_that_is_not_known_or_changed(ways: Ways, known: str, fix: str) -> None:
    other = ways.directory / "other"
    if not other.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    key = other.with_suffix(".pub").read_text().split()[1]
    file = ways.directory / "known_hosts"
    file.write_text(known.format(address=ways.box.state.host("node1").address, other=key))
    status, reached, _ = ways.preflight("alias", ssh_known_hosts_file=str(file))
    assert (status, reached["level"]) == (1, "fail")
    assert fix in reached["fix"]


@pytest.mark.parametrize(
    ("data", "fix"), [({"ssh_port": 2299}, "ssh_port"), ({"ssh_key": "/nowhere/key"}, "correct ssh_key")]
)
def test_a_wrong_address_or_key(ways: Ways, data: dict[str, object], fix: str) -> None:
    status, reached, _ = ways.preflight("alias", **data)
    assert (status, reached["level"]) == (1, "fail")
    assert fix in reached["fix"]


def test_a_port_as_text_is_refused_without_a_traceback(ways: Ways) -> None:
    status, _, printed = ways.preflight("alias", ssh_port="22")
    assert status == 2
    assert "ssh_port" in printed
