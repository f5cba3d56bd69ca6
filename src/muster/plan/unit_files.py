"""The files of one host: units, environment files, and the little that a host needs besides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from muster.on_host import places, require_api_key
from muster.on_host.hardening import DEVICES
from muster.plan import firewall, guard_files, kept_weights, key_parity
from muster.plan.group import Group
from muster.plan.kept_weights import Kept
from muster.plan.render import render
from muster.plan.topology import Node
from muster.plan.types import File, Process
from muster.spec.host import PER_HOST_ENV

MIDDLEWARE = f"muster_{require_api_key.__name__.rsplit('.', 1)[1]}.{require_api_key.RequireApiKey.__name__}"
"""Class that vLLM loads, from a directory of the group's own: nothing else there may shadow the engine's modules."""


@lru_cache(maxsize=1)
def _middleware_text() -> str:
    return Path(require_api_key.__file__).read_text(encoding="utf-8")


@lru_cache(maxsize=64)
def fixed(template: str, **values: str) -> File:
    """Return a file that is the same on every host of a group."""
    return File(render(template, values))


def unit_names(group: Group, processes: Sequence[Process]) -> tuple[str, ...]:
    """Return the units of one host, in start order: one in all with the guard, one per process without."""
    return tuple(dict.fromkeys(group.unit_of(process.name) for process in processes))


def host_files(
    group: Group, node: Node, processes: tuple[Process, ...], digest: str, kept: Kept | None = None
) -> dict[str, File]:
    """Return every file of one host, path to text.

    Args:
        group: what all hosts share.
        node: the host.
        processes: what runs there, in start order.
        digest: the plan's digest, which each unit carries.
        kept: what keeps the weights on the GPUs; None where nothing does.
    """
    settings = group.settings
    files = {
        places.SYSUSERS: fixed("sysusers.conf.j2"),
        # Its text is the group's own (root, hf_home): two groups on one host must not write one file.
        places.tmpfiles(group.name): fixed("tmpfiles.conf.j2", root=settings.root, hf_home=settings.hf_home),
        places.SYSCTL: fixed("sysctl.conf.j2"),
        places.FIREWALL_UNIT: fixed("firewall.service.j2"),
        f"{group.config}/firewall.nft": File(firewall.ruleset(group, node)),
    }
    if group.guarded:
        files |= guard_files.files(group, node, processes, digest, kept.sockets if kept else "")
        files[places.unit(group.guard_unit)] = File(_guard_unit(group, node, processes, digest))
    else:
        for process in processes:
            files[f"{group.config}/{process.name}.env"] = File(render("env.j2", {"env": process.env}))
            unit = places.unit(group.unit_of(process.name))
            files[unit] = File(_plain_unit(group, node, process, digest))
    if kept is not None:
        files |= _weights_files(group, node, kept)
        if any(kept_weights.plugins(group) in process.env.get("PYTHONPATH", "") for process in processes):
            files |= kept_weights.plugin_files(group)
    if settings.api_key_file:
        files[f"{group.config}/engine/{MIDDLEWARE.split('.')[0]}.py"] = File(_middleware_text())
    files |= {path: File(text) for path, text in group.own_files.items()}
    if group.uses_ray:
        files[f"{group.config}/ray_ready.py"] = File(render("ray_ready.py.j2", {}))
        names = sorted({*PER_HOST_ENV, "RAY_AUTH_TOKEN_PATH", "HOME", "PATH"})
        files[f"{group.config}/vllm/ray_non_carry_over_env_vars.json"] = File(json.dumps(names) + "\n")
    return files


def _common(group: Group, node: Node, digest: str) -> dict[str, object]:
    """Return what both kinds of unit say."""
    return {
        "group": group.name,
        "owner": group.name,
        "wants": [group.weights_unit] if group.settings.keep_weights else [],
        "title": f"{group.title}, node rank {node.node_rank}",
        "digest": digest,
        "stop_seconds": group.stop_seconds,
        "writable": [group.settings.hf_home],
        "devices": DEVICES,
        "closed": not group.fetches,
        "peers": group.peers,
        "clients": [*group.settings.client_networks, *group.settings.monitor_networks],
        "after": [group.firewall_unit],
        "joins": [],
        "start_pre": [],
        "stop_post": [],
        "env_files": [],
        "credentials": [("ray-token", f"{group.config}/ray-token")] if group.uses_ray else [],
    }


def _guard_unit(group: Group, node: Node, processes: tuple[Process, ...], digest: str) -> str:
    values = _common(group, node, digest)
    credentials = []
    if group.settings.api_key_file:
        credentials.append(("api-key", f"{group.config}/secrets.env"))
    if group.settings.secret_env_file:
        credentials.append(("engine-secrets", f"{group.config}/engine-secrets.env"))
    if group.uses_ray:
        credentials.append(("ray-token", f"{group.config}/ray-token"))
    values |= _of_guard(group, guard_files.config_path(group.name))
    values |= {"command": guard_files.command(group, processes), "credentials": credentials}
    return render("unit.service.j2", values)


def _of_guard(group: Group, config: str) -> dict[str, object]:
    """Return what the units of both kinds of guards say."""
    return {
        "guarded": True,
        "stop_post": [("/usr/bin/python3", "-I", guard_files.directory(group), "post", "--config", config)],
        "standard_input": key_parity.guard_key(group.name),
        "restart_seconds": 1,
        "start_seconds": 90,
    }


def _weights_files(group: Group, node: Node, kept: Kept) -> dict[str, File]:
    """Return the unit that keeps one host's weights, hardened as the engine's, and its guard.json."""
    daemons, config = kept.processes[node.host.name], places.weights_config(group.name)
    secrets = [("engine-secrets", f"{group.config}/engine-secrets.env")] if group.settings.secret_env_file else []
    values = _common(group, node, kept.key) | _of_guard(group, config)
    values |= {
        "group": group.weights_group,
        "private": places.weights_run(group.name).rpartition("/")[2],
        "wants": [],
        "title": f"weights of {values['title']}",
        "command": guard_files.weights_command(group, daemons),
        "credentials": secrets,
        "stop_seconds": 30,
    }
    text = guard_files.as_text(guard_files.weights_config(group, node, daemons, kept.key, kept.sockets))
    return {places.unit(group.weights_unit): File(render("unit.service.j2", values)), config: File(text)}


def _plain_unit(group: Group, node: Node, process: Process, digest: str) -> str:
    behind_ray = process.name == "vllm" and group.uses_ray
    ray = [group.unit_of("ray")] if behind_ray else []
    wait = str(group.settings.ready_timeout)
    values = _common(group, node, digest)
    values |= {
        "title": f"{process.name} of {values['title']}",
        "guarded": False,
        "command": (f"{group.release.path}/bin/{process.argv[0]}", *process.argv[1:]),
        "start_pre": [(*group.ray_command, wait)] if behind_ray else [],
        "after": [group.firewall_unit, *ray],
        "joins": ray,
        "env_files": _env_files(group, process),
        "restart_seconds": 5,
        "start_seconds": group.settings.ready_timeout + 60 if behind_ray else 90,
    }
    return render("unit.service.j2", values)


def _env_files(group: Group, process: Process) -> list[str]:
    files = [f"{group.config}/{process.name}.env"]
    if process.name == "vllm" and group.settings.api_key_file:
        files.append(f"{group.config}/secrets.env")  # 0600, read by systemd as root; without it no start
    if group.settings.secret_env_file:
        files.append(f"{group.config}/engine-secrets.env")
    return files
