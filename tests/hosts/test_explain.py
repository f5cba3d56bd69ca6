"""Words of SSH and sudo become a fix that fixes; those below were printed by paramiko, sudo and pyinfra."""

from __future__ import annotations

import pytest

from muster.hosts.explain import explain, refusal


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("SSH error (StrictPolicy: No host key for 192.0.2.1 found in known_hosts)", "compare the key's fingerprint"),
        ("SSH host key error (Host key for 192.0.2.1 does not match.)", "find out why the key changed"),
        ("the SSH session ended: EOFError: ", "NOPASSWD"),
        ("no answer; its last line was: sudo: 1 incorrect password attempt", "correct _sudo_password"),
        ("ops is not in the sudoers file.", "sudoers on gpu-a"),
        ("PyinfraError: No such private key file: /nonexistent", "ssh_key"),
        ("Authentication error (AuthenticationException: Authentication failed.)", "ssh_user and ssh_key"),
        ("Could not resolve hostname: [Errno -2] Name or service not known", "ssh_hostname"),
        ("Could not connect ([Errno None] Unable to connect to port 2222 on 192.0.2.1)", "ssh_port"),
        ("SSH error (SSHException: Error reading SSH protocol banner)", "ProxyCommand"),
        ("found Python 3.6.8; needed: a complete python3 of 3.9 or newer", "python3 package"),
        ("something nobody has seen", "by hand"),
    ],
)
def test_each_cause_has_its_fix(text: str, fix: str) -> None:
    unreached = explain("gpu-a", text)
    assert unreached.found == text
    assert fix in unreached.fix


def test_a_refusal_names_every_host() -> None:
    text = str(refusal({"gpu-a": "No host key for 192.0.2.1", "gpu-b": "timed out"}))
    assert "gpu-a: No host key" in text
    assert "gpu-b: timed out" in text
    assert "fingerprint" in text
