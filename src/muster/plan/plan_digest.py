"""The digest of everything that runs on a group's hosts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

from muster.plan.restart_decision import is_base
from muster.plan.types import File, HostPlan

_LEFT_OUT = frozenset({"files", "processes", "firewall", "weights", "beside"})
"""Of a host's plan: the firewall is a file of it too, and so is what keeps weights; the others are written apart."""


def digest_of(release: str, hosts: Mapping[str, HostPlan]) -> str:
    """Return the digest of everything that runs: a change for one rank restarts the whole group together, once.

    Files that take effect at once are left out: their change, a comment in one included, must restart nothing.
    """
    # Hashed host by host, and a file that hosts share is written as JSON once: a thousand hosts come to 200 MB.
    shared: dict[int, str] = {}
    digest = hashlib.sha256(f"[{json.dumps(release)}, {{".encode())
    for number, name in enumerate(sorted(hosts)):
        digest.update(f"{', ' if number else ''}{json.dumps(name)}: {_as_json(hosts[name], shared)}".encode())
    digest.update(b"}]")
    return digest.hexdigest()[:16]


def _as_json(host: HostPlan, shared: dict[int, str]) -> str:
    """Return one host as JSON, its keys sorted.

    Args:
        host: its plan.
        shared: JSON of files that were written before, by identity.
    """
    content: dict[str, Any] = {
        each.name: getattr(host, each.name) for each in fields(host) if each.name not in _LEFT_OUT
    }
    content["processes"] = [{**asdict(process), "decided": ()} for process in host.processes]
    words = {key: json.dumps(value, sort_keys=True) for key, value in content.items()}
    words["files"] = f"{{{', '.join(_files(host, shared))}}}"
    return f"{{{', '.join(f'{json.dumps(key)}: {words[key]}' for key in sorted(words))}}}"


def _files(host: HostPlan, shared: dict[int, str]) -> Iterator[str]:
    for path, file in sorted(host.files.items()):
        if is_base(path):
            continue
        if id(file) not in shared:
            shared[id(file)] = _file(file)
        yield f"{json.dumps(path)}: {shared[id(file)]}"


def _file(file: File) -> str:
    return json.dumps(asdict(file), sort_keys=True)
