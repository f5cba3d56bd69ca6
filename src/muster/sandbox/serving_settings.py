"""Settings that make a sandbox host serve the tiny model with vLLM's CPU build; group_data/sandbox.py hands them on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from muster.sandbox import passthrough, state_file, vllm_wheel

_TORCH = re.compile(rf"torch-{re.escape(vllm_wheel.TORCH)}(\+|%2B)cpu-cp(\d)(\d+)-.*x86_64\.whl")


@dataclass(frozen=True)
class Engine:
    """Where the engine's packages come from, and the Python they are for."""

    python_version: str
    torch_backend: str | None
    index_url: str | None
    extra_index_urls: tuple[str, ...]
    find_links: tuple[str, ...]
    ssl_cert_file: str | None
    proxy: str | None
    uv_cache_dir: str


def torch_python(file_names: Iterable[str]) -> str | None:
    """Return the Python version ("3.11") of the first CPU build of PyTorch among some wheels, None without one."""
    for name in sorted(file_names):
        match = _TORCH.fullmatch(name)
        if match:
            return f"{match.group(2)}.{match.group(3)}"
    return None


def host_python(base: Path) -> str | None:
    """Return the Python version that hosts made from `base` have, None when it cannot be told."""
    link = base / "usr/bin/python3"
    match = re.fullmatch(r"python(3\.\d+)", link.readlink().name) if link.is_symlink() else None
    return match.group(1) if match else None


def engine(name: str) -> Engine:
    """Return how the hosts of a sandbox get their engine.

    A CPU build of PyTorch in the machine's find-links directories decides the Python version, since wheels are made
    for one. Without it the hosts' own Python is taken, and uv finds PyTorch's CPU index.

    Args:
        name: of the sandbox; it need not be up.
    """
    found = passthrough.machine_indexes()
    wheels = [entry.name for path in found.find_links if path.startswith("/") for entry in Path(path).glob("*.whl")]
    local = torch_python(wheels)
    where = state_file.place(name)
    written = state_file.load(where)
    own = host_python(Path(written.base)) if written else None
    return Engine(
        python_version=local or own or "3.12",
        torch_backend=None if local else "cpu",
        index_url=found.index_url,
        extra_index_urls=found.extra_index_urls,
        find_links=(vllm_wheel.PATH, *found.find_links),
        ssl_cert_file=found.ssl_cert_file,
        proxy=found.proxy,
        uv_cache_dir=str(where.uv_cache),
    )
