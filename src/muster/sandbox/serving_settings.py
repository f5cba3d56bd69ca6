"""Settings with which a sandbox host serves the tiny model on vLLM's CPU build, for group_data/sandbox.py."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from muster.sandbox import names, passthrough, state_file, vllm_wheel

_TORCH = re.compile(rf"torch-{re.escape(vllm_wheel.TORCH)}(\+|%2B)cpu-cp(\d)(\d+)-.*x86_64\.whl")


@dataclass(frozen=True)
class EngineSource:
    """Where the engine's packages come from, and the Python they are for."""

    python_version: str
    torch_backend: str | None
    index_url: str | None
    extra_index_urls: tuple[str, ...]
    find_links: tuple[str, ...]
    ssl_cert_file: str | None
    proxy: str | None
    uv_cache_dir: str


def open_to_this_machine(name: str) -> dict[str, list[str]]:
    """Return the settings that let this machine reach the API and the guard of a sandbox's hosts.

    Args:
        name: of the sandbox; nobody is let in where it is not up.
    """
    state = state_file.load(state_file.place(name))
    networks = [f"{names.gateway(state.network)}/32"] if state else []
    return {"client_networks": networks, "monitor_networks": networks}


def torch_python(file_names: Iterable[str]) -> str | None:
    """Return the Python version ("3.11") of the first CPU build of PyTorch among some wheels, None without one."""
    for name in sorted(file_names):
        match = _TORCH.fullmatch(name)
        if match:
            return f"{match.group(2)}.{match.group(3)}"
    return None


def host_python(base: Path) -> str | None:
    """Return the Python version of hosts made from `base`; None when it cannot be read."""
    link = base / "usr/bin/python3"
    match = re.fullmatch(r"python(3\.\d+)", link.readlink().name) if link.is_symlink() else None
    return match.group(1) if match else None


def engine(name: str) -> EngineSource:
    """Return how the hosts of a sandbox get their engine.

    A CPU wheel of PyTorch in this machine's find-links directories decides the Python version, since a wheel fits only
    one. Without such a wheel the hosts' own Python is used, and uv finds PyTorch's CPU index.

    Args:
        name: of the sandbox; it need not be up.
    """
    indexes = passthrough.machine_indexes()
    wheels = [entry.name for path in indexes.find_links if path.startswith("/") for entry in Path(path).glob("*.whl")]
    local = torch_python(wheels)
    where = state_file.place(name)
    state = state_file.load(where)
    own = host_python(Path(state.base)) if state else None
    return EngineSource(
        python_version=local or own or "3.12",
        torch_backend=None if local else "cpu",
        index_url=indexes.index_url,
        extra_index_urls=indexes.extra_index_urls,
        find_links=(vllm_wheel.PATH, *indexes.find_links),
        ssl_cert_file=indexes.ssl_cert_file,
        proxy=indexes.proxy,
        uv_cache_dir=str(where.uv_cache),
    )
