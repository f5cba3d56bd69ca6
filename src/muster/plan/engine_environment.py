"""The environment of an engine's processes on one host, without secrets."""

from __future__ import annotations

from muster.on_host import places
from muster.plan import vllm_versions
from muster.plan.group import Group
from muster.plan.topology import Node

SYSTEM_PATH = "/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(group: Group, node: Node, process: str) -> dict[str, str]:
    """Return the whole environment of one process on one host, without secrets."""
    settings = group.settings
    env = _engine(group, node) | {
        "PATH": f"{group.release.path}/bin:{SYSTEM_PATH}",
        "HOME": places.state(group.name),
        "XDG_CACHE_HOME": places.cache(group.name),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.hf_endpoint:
        env["HF_ENDPOINT"] = settings.hf_endpoint
        env["HF_HUB_DISABLE_XET"] = "1"  # mirrors pass Xet's headers on and have no Xet behind them
    if settings.offline:
        env["HF_HUB_OFFLINE"] = "1"
    if not group.fetches:
        # It resolves no name. PyTorch looks up the name of a peer's address at each rendezvous, for a log line, and a
        # name server that does not answer would hold each of them up for 10 s.
        env["RES_OPTIONS"] = "timeout:1 attempts:1"
    if settings.ssl_cert_file:
        env |= {"SSL_CERT_FILE": settings.ssl_cert_file, "REQUESTS_CA_BUNDLE": settings.ssl_cert_file}
    if settings.proxy:
        env |= {"HTTPS_PROXY": settings.proxy, "HTTP_PROXY": settings.proxy}
        env["NO_PROXY"] = ",".join(["localhost", "127.0.0.1", *group.peers])
    if group.uses_ray:
        token = group.credential("ray-token", process)
        env |= _ray(group, token_file=token)
        if process == "ray":
            del env["RAY_ADDRESS"]  # `ray start --head` would take it for a cluster to join
    if node.host.devices and not group.guarded:
        # The guard shows its children UUIDs. CUDA numbers GPUs as nvidia-smi does only when told.
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(node.host.devices)}
    env |= settings.extra_env | dict(node.host.env)
    if process == "vllm" and settings.api_key_file:
        env["PYTHONPATH"] = ":".join(filter(None, [f"{group.config}/engine", env.get("PYTHONPATH")]))
    return env


def _engine(group: Group, node: Node) -> dict[str, str]:
    """Return vLLM's own variables on one host; compiled kernels and autotune results are kept from start to start."""
    settings, cache = group.settings, places.cache(group.name)
    env = {
        "VLLM_HOST_IP": node.host.address,
        "VLLM_CACHE_ROOT": f"{cache}/vllm",
        # Inductor moves Triton's cache when it compiles, and not when it loads: two starts would look in two places.
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "VLLM_CONFIG_ROOT": f"{group.config}/vllm",
        "VLLM_NO_USAGE_STATS": "1",
        # With several API servers the engine's clock runs while weights load.
        "VLLM_ENGINE_READY_TIMEOUT_S": str(settings.ready_timeout),
        "HF_HOME": settings.hf_home,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if vllm_versions.version_of(settings.vllm_version) >= vllm_versions.FORKS:
        # Spawned processes import the whole engine again, one after the other, 10 to 15 s each. vLLM spawns anyway
        # where forking is not safe: on CPUs, under Ray, with NUMA binding, with CUDA in use.
        env["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    if node.host.interface and group.topology.hosts > 1:
        env["GLOO_SOCKET_IFNAME"] = node.host.interface
        # Without `=` NCCL takes a prefix: eth1 would take eth10 in. Gloo takes the whole name.
        env["NCCL_SOCKET_IFNAME"] = f"={node.host.interface}"
    return env


def _ray(group: Group, *, token_file: str) -> dict[str, str]:
    """Return what Ray and the engine that joins it need: the cluster's address, and token authentication."""
    return {
        "RAY_ADDRESS": f"{group.topology.head.host.address}:{group.settings.ray_port}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": token_file,
    }
