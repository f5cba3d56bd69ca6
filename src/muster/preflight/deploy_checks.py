"""What a deploy needs of a host besides: nothing in the way of the group's files, units and ports. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from muster.on_host.in_words import size
from muster.on_host.startable import masked_unit
from muster.plan.restart_decision import Observation
from muster.plan.types import HostPlan, Plan
from muster.preflight.verdict import Verdict, fail

RUN_BYTES = 16 << 20
"""systemd refuses a daemon-reload with less room in /run/systemd."""


def verdicts(plan: Plan, seen: Mapping[str, Observation], *, former: str | None = None) -> tuple[Verdict, ...]:
    """Return every reason not to deploy this plan, hosts in the plan's order.

    Args:
        plan: the whole group.
        seen: host -> observation; hosts without one are left out.
        former: the group that this one replaces, whose ports and GPUs it takes over.
    """
    reasons: list[Verdict] = []
    for name, host in plan.hosts.items():
        if name not in seen:
            continue
        for check in (_answers, _systemd, _run, _engine, _units, _ports, _gpus, _files):
            answer = _without(former, seen[name]) if check in (_ports, _gpus) else seen[name]
            if check is _answers or "error" not in answer:
                reasons += [replace(verdict, host=name) for verdict in check(plan, host, answer)]
    return tuple(reasons)


def _without(group: str | None, seen: Observation) -> Observation:
    """Return an observation without another group on the host."""
    return {**seen, "groups": {name: other for name, other in seen.get("groups", {}).items() if name != group}}


def _answers(_plan: Plan, _host: HostPlan, seen: Observation) -> Iterator[Verdict]:
    if "error" in seen:
        yield fail("deploy.state", str(seen["error"]), "a probe of the group's files and units", "repair what it names")


def _systemd(_plan: Plan, _host: HostPlan, seen: Observation) -> Iterator[Verdict]:
    units: Any = seen["units"]
    if isinstance(units.get("error"), str):
        yield fail("deploy.systemd", units["error"], "a systemd that answers", "systemctl is-system-running")


def _run(_plan: Plan, _host: HostPlan, seen: Observation) -> Iterator[Verdict]:
    room = seen.get("run_free")
    if room is not None and room < RUN_BYTES:
        yield fail(
            "deploy.run",
            f"/run has {size(room)} free",
            f"{size(RUN_BYTES)}: systemd reads no unit again below that",
            "du -xh /run | sort -h | tail; remove what fills it",
        )


def _engine(plan: Plan, _host: HostPlan, seen: Observation) -> Iterator[Verdict]:
    if not plan.release.managed and not seen["release"]["runs"]:
        yield fail(
            "deploy.engine",
            f"engine_path {plan.release.path} has no bin/vllm that can be run",
            "a virtual environment with vLLM in it",
            "install vLLM there, or unset engine_path so that muster installs it",
        )


def _units(plan: Plan, host: HostPlan, seen: Observation) -> Iterator[Verdict]:
    for name, other in sorted(seen["groups"].items()):
        theirs = {*other.get("units", []), *other.get("beside", [])}
        for unit in sorted(theirs & set(host.all_units)):
            yield fail(
                "deploy.units",
                f"{unit} is a unit of group {name} on this host",
                f"units of its own for group {plan.group}",
                "set group to a name whose units are called otherwise, or stop and remove that group",
            )


def _ports(plan: Plan, host: HostPlan, seen: Observation) -> Iterator[Verdict]:
    for name, other in sorted(seen["groups"].items()):
        shared = sorted(set(other.get("ports", [])) & set(host.ports))
        if shared:
            yield fail(
                "deploy.ports",
                f"group {name} on this host uses port{'s' * (len(shared) > 1)} {', '.join(map(str, shared))}",
                f"ports of its own for group {plan.group}",
                f"if this group was called {name} before: --data former_group={name};"
                " otherwise set port, rpc_port, master_port, ray_port or control_port to free ones",
            )


def _gpus(plan: Plan, host: HostPlan, seen: Observation) -> Iterator[Verdict]:
    for name, other in sorted(seen["groups"].items()):
        theirs = other.get("gpus", [])  # older ones do not say which
        shared = [gpu for gpu in host.gpu_names if gpu in theirs]
        if shared:
            yield fail(
                "deploy.gpus",
                f"group {name} on this host has GPU{'s' * (len(shared) > 1)} {', '.join(shared)}",
                f"GPUs of its own for group {plan.group}",
                f"if this group was called {name} before: --data former_group={name};"
                " otherwise give each group its own by gpus and gpu_devices in the inventory",
            )
        elif theirs and theirs[0].startswith("GPU-") != host.gpu_names[0].startswith("GPU-"):
            yield fail(
                "deploy.gpus",
                f"group {name} on this host has GPUs {', '.join(theirs)}, this plan {', '.join(host.gpu_names)}",
                "GPUs named alike in both groups: an index and a UUID may be the same GPU",
                "name them by UUID (nvidia-smi -L) in gpu_devices of both inventories",
            )


def _files(_plan: Plan, host: HostPlan, seen: Observation) -> Iterator[Verdict]:
    masked = {masked_unit(text) for text in seen["startable"]["lacks"]}  # group.unit says so
    for path in sorted(host.files):
        if path.rpartition("/")[2] not in masked and seen["files"].get(path, {}).get("kind") in ("link", "other"):
            yield fail("deploy.files", f"{path} is not a regular file", "a file, or nothing, there", f"rm -r {path}")
