from __future__ import annotations

from muster.sandbox import guest
from muster.sandbox.state_file import Host

HOSTS = [Host(f"node{i}", f"10.77.0.{11 + i}", "H200", 1, i) for i in range(2)]


def test_every_host_of_the_sandbox_is_known_by_name() -> None:
    assert guest.hosts_file(HOSTS).splitlines()[-2:] == ["10.77.0.11 node0", "10.77.0.12 node1"]


def test_a_name_server_on_the_machines_loopback_is_passed_over() -> None:
    stub = "nameserver 127.0.0.53\noptions edns0\nsearch x.example\n"
    real = "# note\nnameserver 192.0.2.53\nnameserver ::1\n"
    assert guest.resolv_conf([stub, real]) == "# note\nnameserver 192.0.2.53\n"
    assert "nameserver" not in guest.resolv_conf([stub]).replace("name server", "")


def test_what_is_secret_is_readable_by_root_only() -> None:
    files = guest.fixed_files(HOSTS[0], public_key="ssh-ed25519 AAAA x\n", resolv="", machine_id="0" * 32)
    assert files["/root/.ssh/authorized_keys"].mode == 0o600
    assert "LogLevel VERBOSE" in files["/etc/ssh/sshd_config.d/00-muster-sandbox.conf"].text
    assert files["/usr/local/bin/nvidia-smi"].mode == 0o755
