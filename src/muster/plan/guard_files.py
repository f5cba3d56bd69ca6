"""The guard on one host: its unit, its program and its guard.json. The guard is the unit's main process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from muster import guard
from muster.guard.endpoint_kinds import COMPLETIONS
from muster.on_host import places
from muster.on_host.whole_files import text_sha256
from muster.plan import engine_imports, flags_in_argv, loaders
from muster.plan.group import Group, stack_directory
from muster.plan.topology import Node
from muster.plan.types import File, HostPlan, Plan, Process

# Room the state directory and the caches need before a rank may start, in bytes.
FREE_BYTES = 256 * 1024**2
# The unit's user reads the journal through the group systemd-journal; the kernel's own log is closed to it.
KERNEL_LOG = ("journalctl", "-k", "-b", "-f", "--no-tail", "-o", "short-monotonic")


@lru_cache(maxsize=1)
def program() -> tuple[str, dict[str, File]]:
    """Return the digest of the guard's program and its files by relative path, the same for all hosts."""
    texts = guard.program_files()
    digest = text_sha256(json.dumps(texts, sort_keys=True))[:12]
    return digest, {path: File(text) for path, text in texts.items()}


def directory(group: Group) -> str:
    """Return the path of the guard's program on the hosts; each version has its own, beside the running one."""
    return f"{group.settings.root}/{places.GUARD}/{program()[0]}"


def weights_command(group: Group, daemons: Process) -> tuple[str, ...]:
    """Return the command of the unit that keeps weights: its guard, then the daemons' literal command."""
    return _command(directory(group), places.weights_config(group.name), (daemons,))


def weights_config(group: Group, node: Node, daemons: Process, key: str, sockets: str) -> dict[str, Any]:
    """Return the guard.json of what keeps one host's weights.

    Args:
        group: of the engine that maps them.
        node: the host.
        daemons: `vllm preload` there.
        key: of what is kept, in the place of the plan's digest.
        sockets: directory of the daemons' sockets.
    """
    settings, head = group.settings, group.topology.head
    members = group.topology.nodes if node.is_head else (head, node)
    return {
        "version": 1,
        "group": group.weights_group,
        "recipe": group.recipe,
        "digest": key,
        "engine": group.release.id,
        "unit": group.weights_unit,
        "host": node.host.name,
        "head": {"host": head.host.name, "address": head.host.address, "control_port": settings.keep_weights_port},
        "members": [
            {"host": member.host.name, "address": member.host.address, "node_rank": member.node_rank}
            for member in members
        ],
        "served_model_name": group.served_model_name,
        "processes": [{"name": daemons.name, "env": dict(daemons.env)}],
        "settings": {"ready_timeout": settings.ready_timeout, "drain_seconds": 0},
        "checks": {
            "gpus": node.host.gpus,
            **({"devices": list(node.host.devices)} if node.host.devices else {}),
            "ports": [{"address": "127.0.0.1", "port": group.weights_health_port}],
            "paths": [f"{group.release.path}/bin/{daemons.argv[0]}"],
        },
        "kernel_log": list(KERNEL_LOG),
        "runtime_directory": places.weights_run(group.name),
        "state_directory": places.weights_state(group.name),
        "kept_for": {
            "group": group.name,
            "health_port": group.weights_health_port,
            "state_directory": places.state(group.name),
            "sockets": sockets,
        },
        **({"loading": loaders.as_json(group.loading)} if group.loading else {}),
    }


def config_path(group: str) -> str:
    """Return the path of guard.json on the hosts."""
    return f"{places.config(group)}/guard.json"


def command(group: Group, processes: tuple[Process, ...]) -> tuple[str, ...]:
    """Return the unit's command: the guard, then the literal commands of its children."""
    return _command(directory(group), config_path(group.name), processes)


def command_of(plan: Plan, host: HostPlan) -> tuple[str, ...]:
    """Return the command of a guarded host's unit, from its plan alone."""
    program = next(path for path in host.files if path.endswith("/__main__.py"))
    return _command(program.rpartition("/")[0], config_path(plan.group), host.processes)


def _command(directory: str, config: str, processes: tuple[Process, ...]) -> tuple[str, ...]:
    argv = ["/usr/bin/python3", "-I", directory, "--config", config, "--"]
    for number, process in enumerate(processes):
        argv += ["--then"] if number else []
        argv += process.argv
    return tuple(argv)


def files(group: Group, node: Node, processes: tuple[Process, ...], digest: str, sockets: str = "") -> dict[str, File]:
    """Return the guard's program and configuration for one host.

    Args:
        group: what all hosts share.
        node: the host.
        processes: its children, in start order.
        digest: the plan's digest; members with another one are refused by name.
        sockets: directory of the daemons whose weights the engine maps; empty where it loads its own.
    """
    files = {f"{directory(group)}/{path}": file for path, file in program()[1].items()}
    config = _config(group, node, processes, digest)
    if sockets:
        config["kept_weights"] = {
            "group": group.weights_group,
            "unit": group.weights_unit,
            "health_port": group.weights_health_port,
            "sockets": sockets,
        }
        config["checks"]["beside"] = group.weights_group
    files[config_path(group.name)] = File(as_text(config))
    return files


def as_text(config: dict[str, Any]) -> str:
    """Return a guard's configuration as it lies on a host."""
    return json.dumps(config, indent=1) + "\n"


def _config(group: Group, node: Node, processes: tuple[Process, ...], digest: str) -> dict[str, Any]:
    settings, head = group.settings, group.topology.head
    # The head knows everybody; a member needs the head and itself, and a thousand hosts stay linear.
    members = group.topology.nodes if node.is_head else (head, node)
    hybrid = group.layout.load_balancing == "hybrid"
    stacks, words = stack_directory(group.name), [word for process in processes for word in process.argv]
    return {
        "version": 1,
        "group": group.name,
        "recipe": group.recipe,
        "digest": digest,
        "engine": group.release.id,
        "unit": group.guard_unit,
        "host": node.host.name,
        "head": {
            "host": head.host.name,
            "address": head.host.address,
            "control_port": settings.control_port,
        },
        "members": [
            {
                "host": member.host.name,
                "address": member.host.address,
                "node_rank": member.node_rank,
                "dp_ranks": list(group.dp_ranks(member)),
                **({"port": settings.port} if hybrid else {}),
            }
            for member in members
        ],
        "endpoint": {"address": "127.0.0.1", "port": settings.port} if node.is_head else None,
        "served_model_name": group.served_model_name,
        **({} if group.endpoint == COMPLETIONS else {"endpoint_kind": group.endpoint}),
        "processes": [_child(group, node, process) for process in processes],
        "settings": {
            "ready_timeout": settings.ready_timeout,
            "drain_seconds": settings.drain_seconds,
            "stall_timeout": settings.stall_timeout,
            "canary_idle": settings.canary_idle,
        },
        "checks": {
            "gpus": node.host.gpus,
            **({"devices": list(node.host.devices)} if node.host.devices else {}),
            "ports": [{"address": "0.0.0.0", "port": settings.port}] if group.answers(node) else [],
            "paths": [f"{group.release.path}/bin/{processes[0].argv[0]}"],
            "disk": {places.state(group.name): FREE_BYTES, places.cache(group.name): FREE_BYTES},
        },
        "kernel_log": list(KERNEL_LOG),
        **({"stack_directory": stacks} if any(stacks in word for word in words) else {}),
        **({"loading": loaders.as_json(group.loading)} if group.loading and not settings.keep_weights else {}),
        **({"page_cache": {"directory": group.settings.model}} if _caches(group, words) else {}),
    }


def _caches(group: Group, words: Sequence[str]) -> bool:
    """Whether guards keep the weights in the page cache: those that lie in a directory, and that engines load."""
    settings = group.settings
    if not settings.keep_page_cache or settings.keep_weights or not (settings.model or "").startswith("/"):
        return False
    # A host of Ray's workers has no command line of the engine's, but the user's words for all of them.
    return flags_in_argv.values_of([*settings.extra_args, *words]).get("load-format") != "dummy"


def _child(group: Group, node: Node, process: Process) -> dict[str, Any]:
    child: dict[str, Any] = {"name": process.name, "env": dict(process.env)}
    head = group.topology.head.host.address
    if process.name == "vllm" and group.settings.warm_standby and not group.uses_ray:
        child |= {"standby": list(modules)} if (modules := engine_imports.modules(group.settings.vllm_version)) else {}
    if process.name == "ray" and node.is_head:
        child["ready"] = {"command": ["/usr/bin/env", *group.ray_question(group.guard_unit), "0"], "interval": 2}
    elif process.name == "ray":
        child["wait"] = [{"tcp": [head, group.settings.ray_port]}]
    return child
