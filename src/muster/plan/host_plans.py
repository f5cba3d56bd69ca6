"""What each host of a group gets: processes, secrets, files, units, ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from muster.on_host import places
from muster.plan import command_lines, engine_environment, guard_files, key_parity, unit_files
from muster.plan.firewall import firewall_of
from muster.plan.group import Group
from muster.plan.kept_weights import Kept
from muster.plan.topology import Node
from muster.plan.types import File, HostPlan, Process, Secret
from muster.spec.strategy import FlagValue


def secrets_of(group: Group) -> tuple[Secret, ...]:
    """Return the secrets that every host of a group gets."""
    secrets = [Secret(key_parity.guard_key(group.name))] if group.guarded else []
    if group.uses_ray:
        secrets.append(Secret(f"{group.config}/ray-token"))
    if group.settings.api_key_file:
        secrets.append(Secret(f"{group.config}/secrets.env", source=group.settings.api_key_file, kind="api key"))
    if group.settings.secret_env_file:
        path = f"{group.config}/engine-secrets.env"
        secrets.append(Secret(path, source=group.settings.secret_env_file, kind="environment"))
    return tuple(secrets)


def processes_of(
    group: Group, node: Node, model: str, served: str | None, spoken: Mapping[str, FlagValue]
) -> tuple[Process, ...]:
    """Return the processes of one host, in start order.

    Args:
        group, node: the group and the host.
        model, served: what is served, and its name in the API (None: the model's own).
        spoken: vLLM's flags as its version spells them.
    """
    settings, processes = group.settings, []
    if group.uses_ray:
        argv = command_lines.ray_argv(node, group.topology, port=settings.ray_port)
        processes.append(Process("ray", tuple(argv), engine_environment.environment(group, node, "ray")))
        if not node.is_head:
            return tuple(processes)
    argv = command_lines.serve_argv(
        node,
        group.topology,
        group.layout,
        model=model,
        flags=spoken,
        extra_args=settings.extra_args,
        ray=group.uses_ray,
        port=settings.port,
        rpc_port=settings.rpc_port,
        master_port=settings.master_port,
        served_model_name=served,
        middleware=unit_files.MIDDLEWARE if settings.api_key_file else None,
    )
    decided = argv[: len(argv) - len([*command_lines.spell(spoken), *settings.extra_args])]
    environment = engine_environment.environment(group, node, "vllm")
    processes.append(Process("vllm", tuple(argv), environment, tuple(decided)))
    return tuple(processes)


def _role(group: Group, node: Node) -> str:
    if node.is_head:
        return "head"
    if group.answers(node):
        return "serving"
    return "ray-worker" if group.uses_ray else "headless"


NO_DIGEST = "d16e57d16e57d16e"
"""Stands for the plan's digest in the files that it is made from."""


def with_digest(group: Group, plans: Mapping[str, HostPlan], digest: str) -> dict[str, HostPlan]:
    """Return the same plans with the group's digest in the files that say it: units and guard.json."""
    marked = {}
    for name, plan in plans.items():
        paths = [*map(places.unit, plan.units), *([guard_files.config_path(group.name)] if group.guarded else [])]
        texts = {path: plan.files[path].text.replace(NO_DIGEST, digest) for path in paths}
        marked[name] = replace(plan, files={**plan.files, **{path: File(text) for path, text in texts.items()}})
    return marked


def host_plans(
    group: Group, processes: Mapping[str, tuple[Process, ...]], kept: Kept | None = None
) -> dict[str, HostPlan]:
    """Return what each host gets, with NO_DIGEST in the digest's place.

    Args:
        group, processes: of all hosts.
        kept: what keeps the weights on the GPUs; None where nothing does.
    """
    plans = {}
    for node in group.topology.nodes:
        host, mine, firewall = node.host, processes[node.host.name], firewall_of(group, node)
        plans[host.name] = HostPlan(
            name=host.name,
            role=_role(group, node),
            node_rank=node.node_rank,
            address=host.address,
            interface=host.interface,
            gpu=host.gpu,
            gpus=host.gpus,
            dp_ranks=group.dp_ranks(node),
            processes=mine,
            files=unit_files.host_files(group, node, mine, NO_DIGEST, kept),
            units=unit_files.unit_names(group, mine),
            ports=tuple(opening.first for opening in firewall.openings if opening.first == opening.last),
            firewall=firewall,
            devices=host.devices,
            env=host.env,
            weights=kept.processes[host.name] if kept else None,
            beside=(group.weights_unit,) if kept else (),
        )
    return plans
