"""The groups of an inventory as one table: their plans, also as plain data for scripts, and how they are now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from muster.commands.columns import aligned
from muster.commands.plan_text import as_json as plan_as_json
from muster.plan.fleet import FleetPlan
from muster.plan.types import HostPlan, Plan
from muster.status.fleet_status import FleetStatus, hosts_at_work, note

COLUMNS = ("group", "recipe", "hosts", "GPUs", "layout", "endpoint", "plan")
STATUS_COLUMNS = ("group", "phase", "hosts", "plan", "as planned", "tok/s", "in flight", "restarts")


def as_json(fleet: FleetPlan, sources: Sequence[str] = ()) -> dict[str, Any]:
    """Return the plans as plain data.

    Args:
        fleet: to show.
        sources: files that settings were read from.
    """
    return {
        **({"read": list(sources)} if sources else {}),
        "groups": {group: plan_as_json(plan) for group, plan in fleet.plans.items()},
        "models": {model: [plan.group for plan in plans] for model, plans in _models(fleet).items()},
        "shared_hosts": {
            name: {
                fleet.plans[group].group: {"gpus": list(host.gpu_names), "ports": list(host.ports)}
                for group, host in there
            }
            for name, there in fleet.shared.items()
        },
    }


def as_text(fleet: FleetPlan, where: str, sources: Sequence[str] = (), losses: Sequence[str] = ()) -> str:
    """Return the plans as a row for each group, then who has what of a shared host, then notes.

    Args:
        fleet: to show.
        where: inventory as it was typed.
        sources: files that settings were read from.
        losses: what is left of each model without one of its groups, in words.
    """
    plans = fleet.plans.values()
    hosts = {name for plan in plans for name in plan.hosts}
    gpus = sum(host.gpus for plan in plans for host in plan.hosts.values())
    counts = {"group": len(fleet.plans), "host": len(hosts), "GPU": gpus}
    groups, there, gpu = (f"{count} {what}{'s' * (count != 1)}" for what, count in counts.items())
    lines = [f"{groups} on {there}, {gpu}"]
    lines += [f"read {' · '.join(sources)}"] if sources else []
    lines += ["", *aligned([COLUMNS, *map(_row, plans)]), ""]
    lines += [f"{model} is served by {', '.join(plan.group for plan in its)}" for model, its in _models(fleet).items()]
    lines += losses
    if fleet.shared:
        lines += ["", "hosts of several groups"]
        lines += [
            f"  {name}: {fleet.plans[group].group} has {_part(host)}"
            for name, there in fleet.shared.items()
            for group, host in there
        ]
    notes = [f"  - {plan.group}: {warning}" for plan in plans for warning in plan.warnings]
    lines += ["", "notes", *notes] if notes else []
    refused = [f"  {plan.group}: {line}" for plan in plans if plan.refused for line in plan.refused.splitlines()]
    lines += ["", "no deploy brings these plans to a host", *refused] if refused else []
    return "\n".join([*lines, "", f"one of them: muster plan {where} --group NAME"])


def _row(plan: Plan) -> tuple[str, ...]:
    size = f"{plan.head.gpus} x {plan.head.gpu}"
    return (plan.group, plan.recipe, str(len(plan.hosts)), size, plan.label, plan.endpoint, plan.digest)


def _part(host: HostPlan) -> str:
    ports = ", ".join(f"{opening.name} {opening.range}" for opening in host.firewall.openings)
    gpus = host.gpu_names
    return f"GPU{'s' * (len(gpus) > 1)} {', '.join(gpus)}" + (f"; {ports}" if ports else "")


def _models(fleet: FleetPlan) -> dict[str, list[Plan]]:
    models: dict[str, list[Plan]] = {}
    for plan in fleet.plans.values():
        models.setdefault(plan.served_model_name, []).append(plan)
    return models


def render(status: FleetStatus, where: str) -> RenderableType:
    """Return the status of all groups for a terminal: a row for each, and below it what keeps those that are not whole.

    Args:
        status: to show.
        where: inventory as it was typed, for the next command.
    """
    table = Table(box=None, pad_edge=False)
    for name in STATUS_COLUMNS:
        table.add_column(name, justify="left" if name in STATUS_COLUMNS[:5] else "right", no_wrap=name != "group")
    for group in status.groups:
        load = group.load
        table.add_row(
            group.group,
            Text(group.phase, "green" if group.whole else "red"),
            f"{hosts_at_work(group)}/{len(group.hosts)}",
            group.digest or "-",
            {True: "yes", False: "no", None: "-"}[group.as_planned],
            "-" if load is None else f"{load[0]:,.0f}",
            "-" if load is None else f"{load[1]:,}",
            "-" if group.restarts is None else str(group.restarts),
        )
    parts: list[RenderableType] = [Text(f"{status.ready} of {len(status.groups)} groups serve"), "", table]
    parts += ["", *(Text(text, "red") for text in status.shortages)] if status.shortages else []
    notes = [f"{group.group}: {note(group)}" for group in status.groups if note(group)]
    notes += [f"{edge}, an edge: {why}" for edge, why in status.edges.silent.items()]
    parts += ["", *map(Text, notes)] if notes else []
    return Group(*parts, "", Text(f"one of them: muster status {where} --group NAME"))
