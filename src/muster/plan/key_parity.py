"""Whether the secrets that all hosts of a group must share are the same on all of them, by their digests. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from muster.on_host import places

Secrets = Mapping[str, Mapping[str, Any]]
"""Path -> state of the file, as `muster.on_host.probe_group` describes it."""


def guard_key(group: str) -> str:
    """Return the path of a group's guard key on its hosts."""
    return f"{places.config(group)}/guard-key"


def odd_ones(hosts: Mapping[str, Secrets], path: str) -> tuple[str, ...]:
    """Return the hosts whose copy of a secret is not that of most hosts; of two, both."""
    digests = {host: secrets.get(path, {}).get("sha256") for host, secrets in hosts.items()}
    counts = Counter(digests.values()).most_common()
    if len(counts) < 2:
        return ()
    tied = counts[0][1] == counts[1][1]
    return tuple(host for host, digest in digests.items() if tied or digest != counts[0][0])


def sentences(group: str, hosts: Mapping[str, Secrets]) -> tuple[str, ...]:
    """Return one line for the hosts whose guard key is not the others'; nothing where all have the same."""
    path = guard_key(group)
    odd = odd_ones(hosts, path)
    if not odd:
        return ()
    missing = [host for host in odd if hosts[host].get(path, {}).get("kind") == "missing"]
    if missing:
        return (f"{', '.join(missing)}: {path}, the guard key, is not there",)
    return (f"{', '.join(odd)}: the guard key ({path}) is not the one of the other hosts",)
