"""What filters this host's network, and whether its kernel would enforce the plan's filters; changes nothing.

A host program: standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import Any, Callable

from muster.on_host.probe_sources import answered, tool

Json = dict[str, Any]

LIMIT = 1024 * 1024
# `--check` sends it to the kernel as a transaction that is not committed.
TRIAL = """\
table inet muster_trial {
    chain input { type filter hook input priority 0; policy accept; ip saddr 192.0.2.1 tcp dport 1-2 accept; }
}
"""
BPF_PROG_LOAD, CGROUP_SKB = 5, 8
BPF_CALLS = {"x86_64": 321, "aarch64": 280}
ACCEPT_ALL = bytes([0xB7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])
"""eBPF: r0 = 1; exit."""


def ip_filter() -> Json:
    """Whether systemd's IPAddressDeny= works: a unified cgroup tree, and a kernel that loads programs for it.

    The program that is loaded for the trial is attached to nothing and gone with its descriptor.
    """
    if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return {"works": False, "why": "no unified control group tree (cgroup v2)"}
    call = BPF_CALLS.get(platform.machine())
    if call is None:
        return {"works": None, "why": f"not known on {platform.machine()}"}
    program = ctypes.create_string_buffer(ACCEPT_ALL)
    licence = ctypes.create_string_buffer(b"GPL")
    # union bpf_attr of BPF_PROG_LOAD: type, number of instructions, their address, that of the licence.
    attributes = ctypes.create_string_buffer(128)
    ctypes.memmove(attributes, (CGROUP_SKB).to_bytes(4, "little") + (2).to_bytes(4, "little"), 8)
    ctypes.memmove(ctypes.addressof(attributes) + 8, ctypes.addressof(program).to_bytes(8, "little"), 8)
    ctypes.memmove(ctypes.addressof(attributes) + 16, ctypes.addressof(licence).to_bytes(8, "little"), 8)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(call, BPF_PROG_LOAD, attributes, 128)
    if descriptor >= 0:
        os.close(descriptor)
        return {"works": True, "why": ""}
    number = ctypes.get_errno()
    return {"works": False, "why": f"the kernel loads no cgroup program ({errno.errorcode.get(number, number)})"}


def port_range() -> Json:
    """The ports that the kernel picks from."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first, last = file.read().split()
    return {"first": int(first), "last": int(last)}


SOURCES: dict[str, Callable[[], Json]] = {
    "ruleset": lambda: tool(["nft", "-nn", "list", "ruleset"], limit=LIMIT),
    "trial": lambda: tool(["nft", "--check", "--file", "-"], stdin=TRIAL),
    "firewalld": lambda: tool(["firewall-cmd", "--state"]),
    "ufw": lambda: tool(["ufw", "status"]),
    "ip_filter": ip_filter,
    "port_range": port_range,
}


def main(request: Json) -> Json:
    """Ask every source; `request` is empty."""
    return {name: answered(source) for name, source in SOURCES.items()}
