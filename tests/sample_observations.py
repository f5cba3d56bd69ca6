"""Observations for tests: hosts exactly as a plan wants them, to be changed one thing at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.on_host.whole_files import text_sha256
from muster.plan.restart_decision import asked
from muster.plan.types import Plan
from muster.spec.hardware import gpu

from .preflight import sample

PATHS = ("/tmp", "/opt/muster", "/var/lib/muster/hf")
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
            "ready": False if told["ready"] is not None else None,
            "kept": [],
        }
    return seen


def answers(plan: Plan, seen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what every host answers to the one probe of a deploy: healthy hosts, and the group's state on them.

    Args:
        plan: the whole group.
        seen: host -> state.
    """
    return {name: {**_healthy(plan, name), "probe_group": state} for name, state in seen.items()}


def _healthy(plan: Plan, name: str) -> dict[str, Any]:
    host = plan.hosts[name]
    product = gpu(host.gpu)
    told = sample.answers(host.address)
    told["probe_gpus"] |= sample.gpu_answers(product.product, product.memory_mib, host.gpus)
    told["probe_gpus"]["links"] = sample.printed(sample.links(host.address, interface=host.interface or "eth0"))
    told["probe_machine"]["paths"] = {"value": {path: sample.place() for path in (*PATHS, plan.release.path)}}
    told["probe_machine"]["units"] = {"value": {"running": [*host.units]}}
    told["probe_engine"] |= {"release": None, "files": {}, "digest": None, "revision": None}
    return told


def _unit(*, active: str, digest: str | None, enabled: bool) -> dict[str, Any]:
    return {"active": active, "sub": "running", "digest": digest, "enabled": enabled, "invocation": "a1", "main_pid": 7}


def _host(plan: Plan, name: str) -> dict[str, Any]:
    host = plan.hosts[name]
    return {
        "python": "3.11.2",
        "machine": "x86_64",
        "files": {
            path: {
                "kind": "file",
                "sha256": text_sha256(file.text),
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
        "startable": {"lacks": [], "plans": {}},
        "changes": {},
        "release": {"exists": True, "complete": True, "runs": True},
        "uv": True,
        "accepted": [True for _ in asked(host)],
        "ready": True if host.node_rank == 0 else None,
        "kept": [kept(plan)],
        "held": "",
    }


def kept(plan: Plan, number: int = 1, **more: Any) -> dict[str, Any]:
    """Return what a host says of a verified plan that it keeps."""
    header = {
        "digest": plan.digest,
        "number": number,
        "label": plan.label,
        "recipe": plan.recipe,
        "release": {"id": plan.release.id, "path": plan.release.path},
        "hosts": list(plan.hosts),
        "drain_seconds": plan.drain_seconds,
        "verified": "2026-11-26T10:00:00Z",
        "by": "ann@control",
        "seconds": {"stop": 2.0, "start": 60.0},
    }
    return {**header, **more}
