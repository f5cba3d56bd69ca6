"""Fill a host's root file system: identity, keys, simulated GPU tools, the tiny model, the wheels."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from muster.sandbox import names, tiny_model, vllm_wheel
from muster.sandbox.guest import GPUS, TOOLS, fixed_files, hosts_file, resolv_conf
from muster.sandbox.shell import run, write
from muster.sandbox.simulated_gpus import healthy
from muster.sandbox.state_file import Host, Place

_RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
_HERE = Path(__file__).resolve().parent


def supernet() -> str:
    """Return the range that sandboxes take their networks from."""
    return os.environ.get("MUSTER_SANDBOX_NETWORK") or names.SUPERNET


def make_key(path: Path, comment: str) -> None:
    """Make an SSH key pair without passphrase at `path` and `path`.pub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def host_key(where: Place, host: Host) -> str:
    """Return a host's public key ("ssh-ed25519 AAAA…"), made on first use and kept over wipes."""
    key = where.host(host.name) / "ssh_host_ed25519_key"
    if not key.is_file():
        make_key(key, host.name)
    return " ".join(key.with_suffix(".pub").read_text().split()[:2])


def furnish(where: Place, host: Host, hosts: Iterable[Host]) -> None:
    """Turn the root under `where` into this host; files that a test may have changed since are kept.

    Args:
        where: the sandbox.
        host: whose root it is; mounted.
        hosts: all hosts, for /etc/hosts.
    """
    tree = where.tree(host.name)
    write(tree / "etc/hosts", hosts_file(hosts))
    if (tree / "etc/muster-sandbox/furnished").exists():
        return
    host_key(where, host)
    key = where.host(host.name) / "ssh_host_ed25519_key"
    write(tree / "etc/ssh/ssh_host_ed25519_key", key.read_text(), 0o600)
    write(tree / "etc/ssh/ssh_host_ed25519_key.pub", key.with_suffix(".pub").read_text())
    texts = [path.read_text() for path in map(Path, _RESOLVERS) if path.is_file()]
    files = fixed_files(
        host,
        public_key=where.key.with_suffix(".pub").read_text(),
        resolv=resolv_conf(texts),
        machine_id=uuid.uuid4().hex,
    )
    for path, file in files.items():
        write(tree / path.lstrip("/"), file.text, file.mode)
    (tree / "root/.ssh").chmod(0o700)
    _tools(tree, host)
    _engine(tree)
    where.uv_cache.mkdir(parents=True, exist_ok=True)
    link = tree / "etc/systemd/system/multi-user.target.wants/nvidia-fabricmanager.service"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("/etc/systemd/system/nvidia-fabricmanager.service")
    write(tree / "etc/muster-sandbox/furnished", "")


def _engine(tree: Path) -> None:
    for name, text in tiny_model.files().items():
        write(tree / tiny_model.PATH.lstrip("/") / name, text)
    directory = tree / vllm_wheel.PATH.lstrip("/")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / vllm_wheel.file_name()).write_bytes(vllm_wheel.build())


def _tools(tree: Path, host: Host) -> None:
    target = tree / TOOLS.lstrip("/")
    for part in ("tools", "recorded"):
        shutil.copytree(_HERE / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
    write(tree / GPUS.lstrip("/"), json.dumps(healthy(host.gpu, host.gpus), indent=2) + "\n")
