"""What a group says of itself on each of its hosts, in one JSON file: enough to stop, restart and find it again.

Pure: a plan in, a plan with one more file a host out. A host tells its own part only, so that a manifest does not grow
with the group; the parts of all hosts make the whole.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from muster.plan.types import Check, File, HostPlan, Plan, Step


def path(group: str) -> str:
    """Return where the manifest of a group lies on its hosts."""
    return f"/etc/muster/{group}/plan.json"


def with_manifest(plan: Plan) -> Plan:
    """Return the plan with the manifest among every host's files."""
    hosts = {
        name: dataclasses.replace(host, files={**host.files, path(plan.group): File(_text(plan, host))})
        for name, host in plan.hosts.items()
    }
    return dataclasses.replace(plan, hosts=hosts)


def _text(plan: Plan, host: HostPlan) -> str:
    told = {
        "group": plan.group,
        "recipe": plan.recipe,
        "strategy": plan.strategy,
        "label": plan.label,
        "model": plan.model,
        "served_model_name": plan.served_model_name,
        "digest": plan.digest,
        "release": plan.release.id,
        "endpoint": plan.endpoint,
        "host": host.name,
        "hosts": len(plan.hosts),
        "role": host.role,
        "node_rank": host.node_rank,
        "units": list(host.units),
        "ports": list(host.ports),
        "steps": [
            {
                "text": step.text,
                "units": list(step.units.get(host.name, ())),
                "checks": [dataclasses.asdict(check) for check in step.checks if check.host == host.name],
            }
            for step in plan.steps
        ],
        "ready_timeout": plan.ready_timeout,
        "drain_seconds": plan.drain_seconds,
        "heals": plan.heals,
    }
    return json.dumps(told, indent=1) + "\n"


def steps(manifests: Mapping[str, Mapping[str, Any]]) -> tuple[Step, ...]:
    """Return the bring-up steps that the manifests of all hosts of a group tell of together.

    Args:
        manifests: host -> what its manifest holds.

    Raises:
        KeyError, TypeError: a manifest was written by another version of muster.
    """
    first = next(iter(manifests.values()))["steps"]
    return tuple(
        Step(
            text=step["text"],
            units={
                host: tuple(told["steps"][number]["units"])
                for host, told in manifests.items()
                if told["steps"][number]["units"]
            },
            checks=tuple(_check(check) for told in manifests.values() for check in told["steps"][number]["checks"]),
        )
        for number, step in enumerate(first)
    )


def _check(told: Mapping[str, Any]) -> Check:
    target = told["target"]
    return Check(
        host=told["host"],
        kind=told["kind"],
        target=target if isinstance(target, str) else tuple(target),
        text=told["text"],
    )
