"""Recipe, hosts and settings become one plan. Every decision of a deploy is made here, before any host is touched."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from muster import engine, memory, units
from muster.bring_up import order_of, steps_of
from muster.errors import Refusal, unknown
from muster.plan import HostPlan, Plan, Process, Secret
from muster.recipe import FlagValue, Recipe, Shape, Strategy
from muster.release import release_of
from muster.settings import Settings
from muster.topology import HostSpec, Layout, Node, Topology, build_topology, lay_out

# What the topology decides; a user's own value would contradict it.
_MANAGED = frozenset(
    {
        "--tensor-parallel-size",
        "--pipeline-parallel-size",
        "--data-parallel-size",
        "--data-parallel-size-local",
        "--data-parallel-address",
        "--data-parallel-rpc-port",
        "--data-parallel-start-rank",
        "--decode-context-parallel-size",
        "--headless",
        "--nnodes",
        "--node-rank",
        "--master-addr",
        "--master-port",
        "--port",
        "--served-model-name",
        "--distributed-executor-backend",
        "-tp",
        "-pp",
        "-dp",
        "-dpl",
        "-dpa",
        "-dpp",
        "-dpr",
        "-dcp",
        "-n",
        "-r",
    }
)
_SECRET_NAME.search(name):
            raise Refusal(
                f"extra_env holds {name}",
                needed="no secrets there: environment files are readable by all",
                fix="use api_key_file, or a file on the hosts that only the engine's user reads",
            )
    return flags


def _fit(
    recipe: Recipe,
    settings: Settings,
    shape: Shape,
    layout: Layout,
    topology: Topology,
    flags: dict[str, FlagValue],
    warnings: list[str],
) -> tuple[memory.Memory, list[str]]:
    """Work out the memory table, shorten an unspoken context that does not fit, refuse what cannot fit."""
    asked = flags.get("max-model-len")
    utilization = float(flags.get("gpu-memory-utilization", engine.default_utilization(settings.vllm_version)))
    length = int(asked) if asked is not None else recipe.context
    fit = memory.per_gpu(
        shape,
        layout,
        topology.gpu,
        utilization=utilization,
        batched_tokens=int(flags.get("max-num-batched-tokens", engine.DEFAULT_BATCHED_TOKENS)),
        max_model_len=length,
        cache_bytes=memory.FP8_BYTES if str(flags.get("kv-cache-dtype")).startswith("fp8") else memory.BF16_BYTES,
    )
    if fit.fits:
        return fit, warnings
    if asked is None and fit.longest() >= LEAST_MODEL_LEN:
        flags["max-model-len"] = fit.longest()
        note = (
            f"max_model_len set to {fit.longest():,}: the model's own {length:,} tokens do not fit"
            f" {topology.gpu.product} with {layout.label}"
        )
        return replace(fit, needed_tokens=fit.longest()), [*warnings, note]
    if settings.allow_oversubscription:
        return fit, [*warnings, f"{layout.label} does not fit {topology.gpu.product}; allow_oversubscription is set"]
    raise Refusal(
        f"{recipe.name} as {layout.label} does not fit {topology.hosts} x {topology.gpus_per_host}"
        f" {topology.gpu.product}",
        needed="room for the weights, the allowance and one request of full length on every GPU",
        fix="take another strategy, more hosts, a smaller max_model_len, or set allow_oversubscription",
        detail=f"per GPU:\n{fit.table()}",
    )


def _cautions(recipe: Recipe, settings: Settings, flags: Mapping[str, FlagValue], model: str) -> list[str]:
    notes = []
    if flags.get("trust-remote-code") and "revision" not in flags and not model.startswith("/"):
        notes.append(f"{model} runs its own code (--trust-remote-code) at no pinned revision: set revision to a commit")
    if engine.version_of(settings.vllm_version) < engine.SECURITY_FLOOR:
        notes.append(f"vLLM {settings.vllm_version} lacks security fixes of 0.30 to 0.32")
    return notes


def _secrets(group: units.Group) -> tuple[Secret, ...]:
    secrets = []
    if group.uses_ray:
        secrets.append(Secret(f"{group.config}/ray-token"))
    if group.settings.api_key_file:
        secrets.append(Secret(f"{group.config}/secrets.env", source=group.settings.api_key_file))
    return tuple(secrets)


def _processes(
    group: units.Group, node: Node, model: str, served: str | None, flags: Mapping[str, FlagValue]
) -> tuple[Process, ...]:
    settings, processes = group.settings, []
    if group.uses_ray:
        argv = engine.ray_argv(node, group.topology, port=settings.ray_port)
        processes.append(Process("ray", tuple(argv), units.environment(group, node, "ray")))
        if not node.is_head:
            return tuple(processes)
    argv = engine.serve_argv(
        node,
        group.topology,
        group.layout,
        model=model,
        flags=flags,
        extra_args=settings.extra_args,
        executor=settings.executor,
        port=settings.port,
        rpc_port=settings.rpc_port,
        master_port=settings.master_port,
        served_model_name=served,
    )
    processes.append(Process("vllm", tuple(argv), units.environment(group, node, "vllm")))
    return tuple(processes)


def _host_plans(
    group: units.Group, processes: Mapping[str, tuple[Process, ...]], *, digest: str
) -> dict[str, HostPlan]:
    plans = {}
    for node in group.topology.nodes:
        host, local = node.host, group.layout.dp_local
        mine = processes[host.name]
        plans[host.name] = HostPlan(
            name=host.name,
            role="head" if node.is_head else ("ray-worker" if group.uses_ray else "headless"),
            node_rank=node.node_rank,
            address=host.address,
            interface=host.interface,
            gpu=host.gpu,
            gpus=host.gpus,
            dp_ranks=tuple(range(node.node_rank * local, (node.node_rank + 1) * local))
            if group.layout.dp > 1
            else ((0,) if node.is_head else ()),
            processes=mine,
            files=units.host_files(group, node, mine, digest),
            units=tuple(units.unit_name(group, process.name) for process in mine),
            ports=_ports(group, node),
        )
    return plans


def _ports(group: units.Group, node: Node) -> tuple[int, ...]:
    settings = group.settings
    ports = [settings.port] if node.is_head else []
    if node.is_head and group.layout.dp > 1:
        ports.append(settings.rpc_port)
    if group.uses_ray:
        ports += [*([settings.ray_port] if node.is_head else []), *list(engine.RAY_PORTS.values())[:-2]]
    elif node.is_head and group.layout.pp > 1:
        ports.append(settings.master_port)
    return tuple(ports)


def _digest(plan: Plan, hosts: Mapping[str, HostPlan]) -> str:
    """Return the digest of all that runs: what changes for one rank restarts the group, once, together."""
    content = {name: asdict(host) for name, host in hosts.items()}
    text = json.dumps([plan.release.id, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
