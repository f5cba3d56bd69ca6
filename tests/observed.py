"""Observations for tests: hosts exactly as a plan wants them, to be changed one thing at a time."""

from __future__ import annotations

from typing import Any

from muster.decision import asked, sha256
from muster.hardware import GIB, gpu
from muster.plan import Plan

SECRET = "5ec" * 20
"""What every secret's SHA-256 is on hosts that are as planned."""


def as_planned(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return what every host answers when the group runs as planned."""
    return {name: _host(plan, name) for name in plan.hosts}


def fresh(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return what every host answers when muster has never been there."""
    seen = as_planned(plan)
    for name, told in seen.items():
        told |= {
            "files": {path: {"kind": "missing"} for path in told["files"]},
            "secrets": {path: {"kind": "missing"} for path in told["secrets"]},
            "units": {unit: _unit(active="inactive", digest=None, enabled=False) for unit in plan.hosts[name].units},
            "release": {"exists": False, "complete": False, "runs": False},
            "uv": False,
            "accepted": [False for _ in told["accepted"]],
            "listening": {},
            "ready": False if told["ready"] is not None else None,
        }
    return seen


def _unit(*, active: str, digest: str | None, enabled: bool) -> dict[str, Any]:
    return {"active": active, "sub": "running", "digest": digest, "enabled": enabled, "invocation": "a1", "main_pid": 7}


def _host(plan: Plan, name: str) -> dict[str, Any]:
    host = plan.hosts[name]
    product = gpu(host.gpu)
    return {
        "python": "3.11.2",
        "uid": 0,
        "machine": "x86_64",
        "os": "Debian GNU/Linux 12 (bookworm)",
        "systemd": 252,
        "files": {
            path: {
                "kind": "file",
                "sha256": sha256(file.text),
                "mode": file.mode,
                "owner": file.owner,
                "group": file.group,
            }
            for path, file in host.files.items()
        },
        "secrets": {
            secret.path: {
                "kind": "file",
                "sha256": SECRET,
                "mode": secret.mode,
                "owner": secret.owner,
                "group": secret.group,
            }
            for secret in plan.secrets
        },
        "stale": [],
        "units": {unit: _unit(active="active", digest=plan.digest, enabled=True) for unit in host.units},
        "groups": {},
        "listening": {str(port): {"pid": 7, "command": "vllm", "unit": host.units[-1]} for port in host.ports[:1]},
        "release": {"exists": True, "complete": True, "runs": True},
        "uv": True,
        "accepted": [True for _ in asked(host)],
        "disk_free": 500 * GIB,
        "gpus": {
            "devices": [{"name": product.product, "memory_mib": product.memory_mib}] * host.gpus,
            "driver": "580.95.05",
        },
        "addresses": {"127.0.0.1": "lo", host.address: host.interface or "eth0"},
        "ready": True if host.node_rank == 0 else None,
        "held": "",
    }
