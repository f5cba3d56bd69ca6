"""Whether a group that is taken down could come back, from what its hosts have of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from muster.plan import key_parity


def obstacles(group: str, seen: Mapping[str, Mapping[str, Any]], plans: Mapping[str, str]) -> tuple[str, ...]:
    """Return what would keep a group from starting again, each with its host.

    Args:
        group: its name.
        seen: host -> what `muster.on_host.probe_group` answered about the group.
        plans: host -> digest in its plan.json.
    """
    return (
        *_lacking(seen, plans),
        *key_parity.sentences(group, {host: each["secrets"] for host, each in seen.items()}),
    )


def _lacking(seen: Mapping[str, Mapping[str, Any]], plans: Mapping[str, str]) -> Iterator[str]:
    for host, answer in seen.items():
        for text in answer["startable"]["lacks"]:
            yield f"{host}: {text}"
        for path, digest in answer["startable"]["plans"].items():
            if digest != plans.get(host, digest):
                yield f"{host}: {path} is of plan {digest}, its plan.json of {plans[host]}"
