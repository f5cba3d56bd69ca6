"""A healthy host for tests: GPUs as recorded on a real 2x H200 machine, the rest as such a host answers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import muster.sandbox
from muster.preflight import read_report
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs, PathNeed, PortNeed

RECORDED = Path(muster.sandbox.__file__).parent / "recorded"
GIB = 1024**3
NOW = 1_800_000_000.0


def recorded(name: str) -> str:
    """Return what the real machine printed."""
    return (RECORDED / name).read_text()


def printed(text: str, rc: int = 0, stderr: str = "", **more: Any) -> dict[str, Any]:
    """Return a source whose tool printed a text."""
    return {"value": {"rc": rc, "text": text, "stderr": stderr, "truncated": False, **more}}


def links(address: str, mtu: int = 9000, interface: str = "eth1", up: bool = True) -> str:
    """Return what `ip -j addr` prints on a host of one fabric interface."""
    entries = [
        {"ifname": "lo", "flags": ["LOOPBACK", "UP", "LOWER_UP"], "mtu": 65536, "addr_info": [{"local": "127.0.0.1"}]},
        {
            "ifname": interface,
            "flags": ["BROADCAST", "UP", *(["LOWER_UP"] if up else [])],
            "mtu": mtu,
            "addr_info": [{"family": "inet", "local": address, "prefixlen": 24}],
        },
    ]
    return json.dumps(entries)


def place(free: int = 2000 * GIB, options: str = "rw,relatime", device: int = 1, held: int = 0) -> dict[str, Any]:
    """Return the facts of a path."""
    return {
        "mount": "/",
        "options": options,
        "type": "ext4",
        "device": device,
        "total": free,
        "free": free,
        "held": held,
    }


def ib_port(
    state: str = "4: ACTIVE", physical: str = "5: LinkUp", layer: str = "InfiniBand", kind: str = "IB/RoCE v1"
) -> dict[str, Any]:
    """Return an RDMA port as /sys tells it."""
    return {
        "device": "mlx5_0",
        "port": "1",
        "state": state + "\n",
        "phys_state": physical + "\n",
        "link_layer": layer + "\n",
        "gid_types": [kind + "\n"],
    }


def systemd(version: str = "252", *, booted: bool = True) -> dict[str, Any]:
    """Return what a host says of its systemd."""
    shown = printed(f"systemd {version} ({version}.39-1~deb12u1)\n+PAM +AUDIT\n")["value"]
    return {"value": {"version": shown, "booted": booted}}


def answers(address: str = "198.51.100.11") -> dict[str, Any]:
    """Return what the host programs of a healthy, provisioned host answer."""
    return copy.deepcopy(
        {
            "probe_gpus": {
                "gpus": printed(recorded("h200x2-query-gpu.csv"), refused=[]),
                "apps": printed(recorded("h200x2-compute-apps-idle.csv"), cgroups={}),
                "remapped": printed(
                    "gpu_uuid, remapped_rows.pending, remapped_rows.failure\n"
                    "GPU-00000000-0000-0000-0000-000000000000, 0, 0\n"
                    "GPU-00000000-0000-0000-0000-000000000001, 0, 0\n"
                ),
                "nvlink": printed(recorded("h200x2-nvlink-s.txt")),
                "topology": printed(recorded("h200x2-topo-m.txt")),
                "driver_log": printed("", repaired=None),
                "fabric_manager": {
                    "value": {
                        "unit": printed("LoadState=loaded\nActiveState=active\nSubState=running\n")["value"],
                        "version": printed("Fabric Manager version is : 580.159.04\n")["value"],
                    }
                },
                "links": printed(links(address)),
                "systemd": systemd(),
                "names": {
                    "value": {
                        "hostname": "h200-0",
                        "own": printed(f"{address} STREAM h200-0\n{address} DGRAM\n")["value"],
                    }
                },
                "started": {"value": {"wall": NOW}},
            },
            "probe_firewall": {
                "ruleset": printed(""),
                "trial": printed(""),
                "firewalld": {"error": "firewall-cmd is not installed"},
                "ufw": {"error": "ufw is not installed"},
                "ip_filter": {"value": {"works": True, "why": ""}},
                "port_range": {"value": {"first": 32768, "last": 60999}},
            },
            "probe_machine": {
                "system": {
                    "value": {
                        "os_release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
                        "libc": "glibc 2.36",
                        "machine": "x86_64",
                        "kernel": "6.1.0-40-amd64",
                        "python": "3.11.2",
                        "python_path": "/usr/bin/python3",
                        "meminfo": "MemTotal:       2113456789 kB\n",
                        "shm_bytes": 1000 * GIB,
                        "pid_max": "4194304\n",
                        "nr_open": "1048576\n",
                        "uid": 0,
                    }
                },
                "units": {"value": {"running": []}},
                "infiniband": {"value": {"ports": [ib_port()]}},
                "gpudirect": {
                    "value": {"modules": ["nvidia", "nvidia_peermem"], "driver": "", "kernel": "6.1.0-40-amd64"}
                },
                "paths": {"value": {"/tmp": place(), "/opt/muster/engines/r": place(), "/var/lib/muster/hf": place()}},
                "listening": {"value": {"ports": []}},
                "clock": {"value": {"wall": NOW}},
            },
            "probe_engine": {
                "release": {
                    "path": "/opt/muster/engines/r",
                    "versions": {"vllm": "0.33.0", "torch": "2.13.0", "nccl": "2.28.9", "ray": "2.60.0"},
                    "cuda": "13.0",
                    "python": "3.12.8",
                },
                "files": {"/etc/muster/g/vllm.env": "a" * 64},
                "digest": "0123456789abcdef",
                "revision": "c" * 40,
                "imported": {"value": {"vllm": "0.33.0", "torch": "2.13.0", "cuda": "13.0", "gpus": 2}},
            },
        }
    )


def gpu_answers(name: str, memory_mib: int, count: int) -> dict[str, Any]:
    """Return what the tools say of so many GPUs of one product, the recorded ones multiplied."""
    head, row, _ = recorded("h200x2-query-gpu.csv").strip().splitlines()
    links = recorded("h200x2-nvlink-s.txt").split("GPU 1:")[0].removeprefix("GPU 0:")
    row = row.replace("NVIDIA H200", name).replace("143771", str(memory_mib)).removeprefix("0,")
    numbers = range(count)
    cells = [["\t".join([f"GPU{i}", *(" X " if i == j else "NV18" for j in numbers)])] for i in numbers]
    return {
        "gpus": printed("\n".join([head, *(f"{i},{row[:-1]}1".replace("000000,", f"00000{i},", 1) for i in numbers)])),
        "nvlink": printed("".join(f"GPU {i}:{links}" for i in numbers)),
        "topology": printed("\n".join(["\t" + "\t".join(f"GPU{i}" for i in numbers), *(line for [line] in cells)])),
    }


def report(host: str = "h200-0", address: str = "198.51.100.11", **sources: Any) -> HostReport:
    """Return a healthy host's report.

    Args:
        host: inventory name.
        address: on the fabric.
        sources: `program__source=answer` replaces what one source answered.
    """
    said_by = answers(address)
    for name, answer in sources.items():
        program, _, source = name.partition("__")
        if source:
            said_by[program][source] = answer
        else:
            said_by[program] = answer
    return read_report.from_answers(host, said_by, NOW - 0.2, NOW + 0.2)


def needs(host: str = "h200-0", address: str = "198.51.100.11", **changed: Any) -> Needs:
    """Return what a plan of two such hosts needs of one."""
    values: dict[str, Any] = {
        "host": host,
        "hosts": 2,
        "product": "NVIDIA H200",
        "gpus": 2,
        "memory_mib": 143771,
        "vllm": "0.33.0",
        "gpu_bytes": 100 * GIB,
        "utilization": 0.85,
        "address": address,
        "interface": "eth1",
        "ports": (PortNeed(8000, "port"), PortNeed(29550, "rpc_port")),
        "paths": (
            PathNeed("/tmp", "temporary files", executable=True),
            PathNeed("/opt/muster/engines/r", "the engine", 14 * GIB, executable=True),
            PathNeed("/var/lib/muster/hf", "weights", 958 * GIB, held="/var/lib/muster/hf/hub/models--m--k2"),
        ),
        "memory_bytes": 8 * GIB,
        "shm_bytes": GIB,
        "units": ("muster-g.service",),
        "filtered": True,
        "release": "/opt/muster/engines/r",
        "versions": {"vllm": "0.33.0"},
        "files": {"/etc/muster/g/vllm.env": "a" * 64},
        "revision": "c" * 40,
    }
    return Needs(**{**values, **changed})
