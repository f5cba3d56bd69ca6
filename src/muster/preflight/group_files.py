"""What is wrong with a group's own files on its hosts, each with its word: a key that differs, a masked unit. Pure.

One judge for preflight, drift and deploy. A deploy writes all of it again, but for a unit that somebody has masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from muster.on_host.startable import masked_unit
from muster.plan import key_parity
from muster.preflight.verdict import Verdict, fail, warn

DEPLOY = "run the recipe's deploy, which writes it again"


def request(group: str) -> dict[str, Any]:
    """Return what `muster.on_host.probe_group` is asked for this judgement."""
    return {"group": group, "secrets": [key_parity.guard_key(group)]}


def verdicts(group: str, seen: Mapping[str, Mapping[str, Any]]) -> Iterator[Verdict]:
    """Yield one verdict for each thing that is wrong; nothing of hosts that the group has never been on.

    Args:
        group: its name.
        seen: host -> what `muster.on_host.probe_group` answered to `request`, or more.
    """
    there = {host: answer for host, answer in seen.items() if "error" not in answer and _is_there(answer)}
    for host, answer in there.items():
        for text in answer["startable"]["lacks"]:
            if unit := masked_unit(text):
                found = fail("group.unit", f"{unit} is masked", "a unit that may start", _unmask(unit))
            else:
                found = warn("group.files", text, "every file of the group, whole", DEPLOY)
            yield replace(found, host=host)
    path = key_parity.guard_key(group)
    for host in key_parity.odd_ones({host: answer["secrets"] for host, answer in there.items()}, path):
        text = f"{path} is not the guard key of the other hosts"
        yield replace(warn("group.key", text, "one guard key on every host", DEPLOY), host=host)


def _is_there(answer: Mapping[str, Any]) -> bool:
    startable = answer["startable"]
    return bool(startable["plans"]) or any(masked_unit(text) for text in startable["lacks"])


def _unmask(unit: str) -> str:
    return f"systemctl unmask {unit}, if nobody masked it on purpose; then run the recipe's deploy"
