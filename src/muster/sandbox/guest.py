"""Small text files that make a copy of the base into one host: name, addresses, sshd, name service. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from muster.sandbox.state_file import Host

# VERBOSE prints one "Starting session" line per exec, which tests count.
_SSHD = """\
LogLevel VERBOSE
UseDNS no
PermitRootLogin prohibit-password
PasswordAuthentication no
MaxStartups 200:30:400
MaxSessions 200
HostKey /etc/ssh/ssh_host_ed25519_key
"""

_FABRIC_MANAGER = """\
[Unit]
Description=NVIDIA fabric manager service (simulated)

[Service]
ExecStart=/bin/sleep infinity
Restart=no

[Install]
WantedBy=multi-user.target
"""

# Each daemon-reload runs them all, for half of its CPU seconds, and finds nothing to make: a host here has no disk, no
# swap, no kernel command line and no script of before systemd. An empty file of that name masks one.
_GENERATORS = (
    "cryptsetup", "debug", "fstab", "getty", "gpt-auto", "hibernate-resume", "integritysetup", "rc-local", "run",
    "system-update", "sysv", "veritysetup",
)  # fmt: skip

TOOLS = "/usr/local/lib/muster-sandbox"
"""Where the simulated GPU tools lie on a host."""

GPUS = "/etc/muster-sandbox/gpus.json"
"""The one file that says which GPUs a host pretends to have, and what is wrong with them."""

# Without site and runpy, which take as long to import as the tool itself.
_RUN = f"""PYTHONPATH={TOOLS} exec /usr/bin/python3 -Ss -c 'import sys; from tools.{{0}} import main; {{1}}' """
_MAIN = "sys.exit(main(sys.argv[1:]))"
# Found before the distribution's own on PATH. journalctl answers for the kernel's log only, which on a real host
# holds the driver's messages and here would hold this machine's.
_COMMANDS = {
    "nvidia-smi": f"""\
#!/bin/sh
kept=$({{ stat -c '%i %y' {GPUS}; printf '%s\\n' "$@"; }} | cksum)
kept=/run/muster-sandbox/nvidia-smi.${{kept%% *}}
[ -e "$kept" ] && exec cat "$kept"
export MUSTER_SANDBOX_KEEP=$kept
{_RUN.format("kept", _MAIN)}"$@"
""",
    "nv-fabricmanager": f'#!/bin/sh\n{_RUN.format("nv_fabricmanager", "sys.exit(main())")}"$@"\n',
    "dmesg": f'#!/bin/sh\n{_RUN.format("driver_log", _MAIN)}dmesg "$@"\n',
    "journalctl": f"""\
#!/bin/sh
for word; do
  case $word in
    --dmesg | -k | -[a-zA-Z]k | -k[a-zA-Z]) {_RUN.format("driver_log", _MAIN)}journalctl "$@" ;;
  esac
done
exec /usr/bin/journalctl "$@"
""",
}
"""Commands on a host that answer from GPUS."""


@dataclass(frozen=True)
class Text:
    """One file on a host."""

    text: str
    mode: int = 0o644


def hosts_file(hosts: Iterable[Host]) -> str:
    """Return /etc/hosts: every host of the sandbox by name."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{host.address} {host.name}" for host in hosts]
    return "\n".join(lines) + "\n"


def resolv_conf(candidates: Iterable[str]) -> str:
    """Return the first resolv.conf of `candidates` that names a server a host can reach, else an empty one.

    A stub on the machine's own loopback is out of a host's reach.
    """
    for text in candidates:
        lines = [line for line in text.splitlines() if line.split()[:1] != ["nameserver"] or _reachable(line)]
        if any(line.startswith("nameserver") for line in lines):
            return "\n".join(lines) + "\n"
    return "# no name server of the machine can be reached from here\n"


def _reachable(line: str) -> bool:
    words = line.split()
    return len(words) > 1 and not words[1].startswith("127.") and words[1] != "::1"


def fixed_files(host: Host, *, public_key: str, resolv: str, machine_id: str) -> Mapping[str, Text]:
    """Return the files that one host gets when it is made: absolute path to text."""
    files = {
        "/etc/hostname": Text(host.name + "\n"),
        "/etc/machine-id": Text(machine_id + "\n", 0o444),
        "/etc/resolv.conf": Text(resolv),
        "/etc/ssh/sshd_config.d/00-muster-sandbox.conf": Text(_SSHD),
        "/root/.ssh/authorized_keys": Text(public_key, 0o600),
        "/etc/systemd/system/nvidia-fabricmanager.service": Text(_FABRIC_MANAGER),
    }
    for name in _GENERATORS:
        files[f"/etc/systemd/system-generators/systemd-{name}-generator"] = Text("")
    for name, script in _COMMANDS.items():
        files[f"/usr/local/bin/{name}"] = Text(script, 0o755)
    return files
