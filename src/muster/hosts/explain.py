"""What SSH, sudo and pyinfra say when a host cannot be reached, as a refusal with a fix that fixes. Pure.

The libraries below name a cause in words of their own, often without the setting that mends it; everything that reports
an unreached host goes through here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from muster.errors import Refusal


@dataclass(frozen=True)
class Unreached:
    """Why a host could not be used: what was found, what was needed, what to do."""

    found: str
    needed: str
    fix: str


_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"No host key for|not found in known_hosts|StrictPolicy",
        "a host key that this machine knows",
        "ssh to {host} once by hand and compare the key's fingerprint with the host's own, or set ssh_known_hosts_file",
    ),
    (
        r"[Hh]ost key .*(does not match|mismatch)|BadHostKey|host key error",
        "the host key that this machine knows for {host}",
        (
            "find out why the key changed (installed again, or somebody in between); then ssh-keygen -R its address"
            " and accept the new key by hand"
        ),
    ),
    (
        r"EOFError|no terminal|password is required|interactive authentication",
        "sudo without a password, or a password: sudo on {host} asks for one and there is no terminal to ask at",
        (
            "run from a terminal, let the SSH user sudo without one (NOPASSWD), or give _sudo_password in group data,"
            " read from the environment"
        ),
    ),
    (
        r"incorrect password|[Ss]orry, try again|no password was provided|Authentication token manipulation",
        "the password of the SSH user, for sudo",
        "correct _sudo_password, or run from a terminal and type it",
    ),
    (
        r"not in the sudoers|not allowed to (execute|run)",
        "an SSH user that may use sudo",
        "put the user into the sudoers on {host}, or set ssh_user to root",
    ),
    (
        r"No such private key file|[Ii]dentity file",
        "the private key that the inventory names",
        "correct ssh_key in the inventory",
    ),
    (
        r"encrypted|passphrase",
        "a private key that can be read",
        "load it into an ssh-agent, or set ssh_key_password from the environment",
    ),
    (
        r"Authentication|Permission denied \(publickey|No authentication methods",
        "a login that {host} accepts",
        "correct ssh_user and ssh_key in the inventory, or put the public key into the user's authorized_keys",
    ),
    (
        r"gaierror|[Nn]ame or service|nodename nor servname|[Nn]ot known|resolve",
        "a name or address of {host} that resolves",
        "set ssh_hostname in the inventory",
    ),
    (
        r"[Uu]nable to connect|Connection refused|No route|unreachable",
        "an SSH server that listens there",
        "correct ssh_hostname and ssh_port in the inventory, or start sshd on {host}",
    ),
    (
        r"[Tt]imed? ?out|has printed nothing|has not ended",
        "an answer in time",
        "look at the load of {host} and at the network in between; then run again",
    ),
    (
        r"[Pp]roxy|kex_exchange|banner",
        "a way through the jump host",
        "try ssh to {host} with the same ssh configuration; ProxyJump and ProxyCommand are taken from ssh_config_file",
    ),
    (r"needed: a complete python3|no python", "Python 3.9 or newer", "install the distribution's python3 package"),
)
_GENERAL = (
    "an SSH login and Python 3.9 or newer",
    "ssh to {host} by hand with the inventory's user and key; then run again",
)


def explain(host: str, text: str) -> Unreached:
    """Return why a host could not be used, with what was needed and what to do.

    Args:
        host: its inventory name.
        text: what the library below said.
    """
    for pattern, needed, fix in _CAUSES:
        if re.search(pattern, text[:4096]):
            return Unreached(text, needed.format(host=host), fix.format(host=host))
    needed, fix = _GENERAL
    return Unreached(text, needed, fix.format(host=host))


def refusal(unreached: dict[str, str]) -> Refusal:
    """Return one refusal for all hosts that could not be reached; the first host's cause gives the fix.

    Args:
        unreached: host -> what the library below said; not empty.
    """
    first = explain(*next(iter(unreached.items())))
    named = "; ".join(f"{host}: {text}" for host, text in unreached.items())
    return Refusal(f"no SSH session to {named}", needed=first.needed, fix=first.fix)
