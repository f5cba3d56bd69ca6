"""What a group records on each of its hosts, in one JSON file: enough to find, stop and restart it.

Pure: a plan in, a plan with one more file per host out. Each host records its own part, so a manifest does not grow
with the group; the parts of all hosts make the whole.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from muster.guard.endpoint_kinds import COMPLETIONS
from muster.on_host import places
from muster.plan.types import Check, File, HostPlan, Plan, Step


def path(group: str) -> str:
    """Return the path of a group's manifest on its hosts."""
    return f"{places.config(group)}/plan.json"


def with_manifest(plan: Plan) -> Plan:
    """Return the plan with the manifest among every host's files."""
    hosts = {
        name: dataclasses.replace(host, files={**host.files, path(plan.group): File(_text(plan, host))})
        for name, host in plan.hosts.items()
    }
    return dataclasses.replace(plan, hosts=hosts)


def _text(plan: Plan, host: HostPlan) -> str:
    part = {
        "group": plan.group,
        "recipe": plan.recipe,
        "strategy": plan.strategy,
        "label": plan.label,
        "model": plan.model,
        "served_model_name": plan.served_model_name,
        **({} if plan.endpoint_kind == COMPLETIONS else {"endpoint_kind": plan.endpoint_kind}),
        "digest": plan.digest,
        "release": plan.release.id,
        "endpoint": plan.endpoint,
        "host": host.name,
        "hosts": len(plan.hosts),
        "role": host.role,
        "node_rank": host.node_rank,
        "units": list(host.units),
        **({"beside": list(host.beside)} if host.beside else {}),
        "ports": list(host.ports),
        "gpus": list(host.gpu_names),
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
    return json.dumps(part, indent=1) + "\n"


def steps(manifests: Mapping[str, Mapping[str, Any]]) -> tuple[Step, ...]:
    """Return the bring-up steps of a group from the manifests of all its hosts.

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
                host: tuple(part["steps"][number]["units"])
                for host, part in manifests.items()
                if part["steps"][number]["units"]
            },
            checks=tuple(_check(check) for part in manifests.values() for check in part["steps"][number]["checks"]),
        )
        for number, step in enumerate(first)
    )


def _check(check: Mapping[str, Any]) -> Check:
    target = check["target"]
    return Check(
        host=check["host"],
        kind=check["kind"],
        target=target if isinstance(target, str) else tuple(target),
        text=check["text"],
    )
