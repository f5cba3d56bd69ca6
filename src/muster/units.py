"""The files of one host: units, environment files, and the little that a host needs besides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import collapse_addresses, ip_address, ip_network

from muster import engine
from muster.plan import File, Process, Release
from muster.render import render
from muster.settings import Settings
from muster.topology import Layout, Node, Topology

# Device nodes a GPU engine opens. char-* names resolve through /proc/devices: the modules must be loaded first.
DEVICES = (
    "char-nvidia",
    "char-nvidia-uvm",
    "char-nvidia-caps",
    "char-nvidia-nvswitch",
    "char-nvidiactl",
    "char-infiniband_verbs",
    "/dev/infiniband/rdma_cm",
    "/dev/gdrdrv",
)
SYSTEM_PATH = "/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Group:
    """What all hosts of a group share while their files are written."""

    name: str
    title: str
    recipe: str
    strategy: str
    topology: Topology
    layout: Layout
    settings: Settings
    release: Release

    @property
    def config(self) -> str:
        """Directory of the group's files on a host."""
        return f"/etc/muster/{self.name}"

    @cached_property
    def peers(self) -> tuple[str, ...]:
        """The hosts' own addresses as the fewest networks: a unit of a thousand hosts stays readable."""
        addresses = [ip_address(node.host.address) for node in self.topology.nodes]
        by_version = [[ip_network(a) for a in addresses if a.version == version] for version in (4, 6)]
        return tuple(
            str(network.network_address if network.num_addresses == 1 else network)
            for networks in by_version
            for network in collapse_addresses(networks)  # type: ignore[type-var]
        )

    @property
    def uses_ray(self) -> bool:
        """Whether Ray carries the pipeline across hosts."""
        return self.layout.pp > 1 and self.settings.executor == "ray"

    @property
    def drains(self) -> int:
        """Seconds until systemd kills what is left after a stop: drain time and half a minute."""
        return self.settings.drain_seconds + 30

    @property
    def ray_command(self) -> tuple[str, ...]:
        """The command that succeeds once every GPU has joined Ray."""
        python = f"{self.release.path}/bin/python"
        return (python, f"{self.config}/ray_ready.py", str(self.layout.world_size))


def unit_name(group: Group, process: str) -> str:
    """Return the unit of one process: `muster-<group>-<process>.service`."""
    return f"muster-{group.name}-{process}.service"


def environment(group: Group, node: Node, process: str) -> dict[str, str]:
    """Return the whole environment of one process on one host, without secrets."""
    settings = group.settings
    env = engine.common_env(
        node,
        group.topology,
        cache=f"/var/cache/muster/{group.name}/vllm",
        config_root=f"{group.config}/vllm",
        hf_home=settings.hf_home,
        ready_timeout=settings.ready_timeout,
    )
    env |= {
        "PATH": f"{group.release.path}/bin:{SYSTEM_PATH}",
        "HOME": f"/var/lib/muster/{group.name}",
        "XDG_CACHE_HOME": f"/var/cache/muster/{group.name}",
        "PYTHONUNBUFFERED": "1",
    }
    if settings.hf_endpoint:
        env["HF_ENDPOINT"] = settings.hf_endpoint
    if settings.offline:
        env["HF_HUB_OFFLINE"] = "1"
    if settings.ssl_cert_file:
        env |= {"SSL_CERT_FILE": settings.ssl_cert_file, "REQUESTS_CA_BUNDLE": settings.ssl_cert_file}
    if settings.proxy:
        env |= {"HTTPS_PROXY": settings.proxy, "HTTP_PROXY": settings.proxy}
        env["NO_PROXY"] = ",".join(["localhost", "127.0.0.1", *group.peers])
    if group.uses_ray:
        token = f"/run/credentials/{unit_name(group, process)}/ray-token"
        env |= engine.ray_env(group.topology, port=settings.ray_port, token_file=token)
        if process == "ray":
            del env["RAY_ADDRESS"]  # `ray start --head` would take it for a cluster to join
    return env | settings.extra_env


def host_files(group: Group, node: Node, processes: tuple[Process, ...], digest: str) -> dict[str, File]:
    """Return every file of one host, path to text.

    Args:
        group: what all hosts share.
        node: the host.
        processes: what runs there, in start order.
        digest: the plan's digest, which each unit carries.
    """
    files = {
        "/etc/sysusers.d/muster.conf": File(render("sysusers.conf.j2", {})),
        "/etc/tmpfiles.d/muster.conf": File(
            render("tmpfiles.conf.j2", {"root": group.settings.root, "hf_home": group.settings.hf_home})
        ),
        "/etc/sysctl.d/90-muster.conf": File(render("sysctl.conf.j2", {})),
        f"{group.config}/plan.json": File(_plan_json(group, node, processes, digest)),
    }
    for process in processes:
        files[f"{group.config}/{process.name}.env"] = File(render("env.j2", {"env": process.env}))
        files[f"/etc/systemd/system/{unit_name(group, process.name)}"] = File(_unit(group, node, process, digest))
    if group.uses_ray:
        files[f"{group.config}/ray_ready.py"] = File(render("ray_ready.py.j2", {}))
        names = sorted({*engine.PER_HOST_ENV, "RAY_AUTH_TOKEN_PATH", "HOME", "PATH"})
        files[f"{group.config}/vllm/ray_non_carry_over_env_vars.json"] = File(json.dumps(names) + "\n")
    return files


def _plan_json(group: Group, node: Node, processes: tuple[Process, ...], digest: str) -> str:
    content = {
        "group": group.name,
        "recipe": group.recipe,
        "strategy": group.strategy,
        "digest": digest,
        "host": node.host.name,
        "node_rank": node.node_rank,
        "release": group.release.id,
        "units": [unit_name(group, process.name) for process in processes],
    }
    return json.dumps(content, indent=2) + "\n"


def _unit(group: Group, node: Node, process: Process, digest: str) -> str:
    ray = unit_name(group, "ray")
    behind_ray = process.name == "vllm" and group.uses_ray
    program = process.argv[0]
    values: Mapping[str, object] = {
        "group": group.name,
        "title": f"{process.name} of {group.title}, node rank {node.node_rank}",
        "digest": digest,
        "notify": False,
        "command": (f"{group.release.path}/bin/{program}", *process.argv[1:]),
        "start_pre": [(*group.ray_command, str(group.settings.ready_timeout))] if behind_ray else [],
        "after": [ray] if behind_ray else [],
        "joins": [ray] if behind_ray else [],
        "env_files": _env_files(group, process),
        "restart_seconds": 5,
        "start_seconds": group.settings.ready_timeout + 60 if behind_ray else 90,
        "stop_seconds": group.drains,
        "writable": [group.settings.hf_home],
        "credentials": [("ray-token", f"{group.config}/ray-token")] if group.uses_ray else [],
        "devices": DEVICES,
        "closed": group.settings.offline or (group.settings.model or "").startswith("/"),
        "peers": group.peers,
        "clients": group.settings.client_networks,
    }
    return render("unit.service.j2", values)


def _env_files(group: Group, process: Process) -> list[str]:
    files = [f"{group.config}/{process.name}.env"]
    if process.name == "vllm" and group.settings.api_key_file:
        files.append(f"-{group.config}/secrets.env")  # 0600, read by systemd as root
    return files
