"""What a group says of itself on each of its hosts, in one JSON file: enough to stop, restart and find it again.

Pure: a plan in, a plan with one more file a host out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from muster.plan import Check, File, HostPlan, Plan, Step


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
        "label": plan.label,
        "model": plan.model,
        "served_model_name": plan.served_model_name,
        "digest": plan.digest,
        "endpoint": plan.endpoint,
        "host": host.name,
        "role": host.role,
        "units": list(host.units),
        "ports": list(host.ports),
        "hosts": {name: list(other.units) for name, other in plan.hosts.items()},
        "steps": [dataclasses.asdict(step) for step in plan.steps],
        "ready_timeout": plan.ready_timeout,
    }
    return json.dumps(told, indent=1, default=dict) + "\n"


def steps(manifest: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the bring-up steps that a manifest tells of.

    Raises:
        KeyError, TypeError: the manifest was written by another version of muster.
    """
    return tuple(
        Step(
            text=step["text"],
            units={host: tuple(units) for host, units in step["units"].items()},
            checks=tuple(_check(check) for check in step["checks"]),
        )
        for step in manifest["steps"]
    )


def _check(told: Mapping[str, Any]) -> Check:
    target = told["target"]
    return Check(
        host=told["host"],
        kind=told["kind"],
        target=target if isinstance(target, str) else tuple(target),
        text=told["text"],
    )
