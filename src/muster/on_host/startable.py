"""What keeps a group's units from starting on this host, judged from its files; nothing is changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from muster.on_host import places, whole_files

Json = dict[str, Any]

MASKED = "is masked (systemctl unmask)"
_PROGRAM = re.compile(r"^ExecStart=\S+ -I (\S+)", re.MULTILINE)
_FILES = re.compile(r"^(?:StandardInput=file:|LoadCredential=[^:\n]+:|EnvironmentFile=)(/\S+)$", re.MULTILINE)
_DIGEST = re.compile(r"^Environment=.*\bMUSTER_DIGEST=(\S+)", re.MULTILINE)


def state(root: str, group: str, units: Sequence[str]) -> Json:
    """Return {lacks: [text], plans: {path: digest}}: what is not there or not whole, and the plan of each file.

    Args:
        root: where the file system begins.
        group: its name.
        units: of the group on this host.
    """
    lacks, plans = [], {}
    if not units:
        lacks.append(f"no unit of group {group} is there")
    elif not os.path.isfile(f"{root}{places.config(group)}/plan.json"):
        lacks.append(f"{places.config(group)}/plan.json is not there")
    for unit in units:
        path = places.unit(unit)
        if masked(root + path):
            lacks.append(f"{unit} {MASKED}")
            continue
        text = whole_files.read_start(root + path) or ""
        digest = _DIGEST.search(text)
        if digest is None:
            lacks.append(f"{path} is not whole")
            continue
        if unit != places.weights_unit(group):  # it carries the key of what it keeps
            plans[path] = digest.group(1)
        lacks += [f"{needed} is not there" for needed in _needed(text) if not os.path.exists(root + needed)]
        if _PROGRAM.search(text):
            lacks += _guard(root, f"{places.config(group)}/guard.json", plans)
    return {"lacks": lacks, "plans": plans}


def masked(path: str) -> bool:
    """Whether a unit's file is what `systemctl mask` leaves of it."""
    return os.path.islink(path) and os.path.realpath(path) == os.devnull


def masked_unit(lack: str) -> str:
    """Return the unit that one sentence of `lacks` calls masked; "" where it says something else."""
    unit, _, rest = lack.partition(" ")
    return unit if rest == MASKED else ""


def _needed(unit: str) -> Iterator[str]:
    """Yield the files that a unit cannot start without."""
    for program in _PROGRAM.findall(unit):
        yield f"{program}/__main__.py"
    yield from _FILES.findall(unit)


def _guard(root: str, path: str, plans: dict[str, str]) -> Iterator[str]:
    """Yield what guard.json lacks, and note its plan."""
    if not os.path.lexists(root + path):
        yield f"{path} is not there"
        return
    config = whole_files.read_object(root + path)
    digest, checks = config.get("digest"), config.get("checks")
    if not isinstance(digest, str) or not isinstance(checks, dict):
        yield f"{path} is not whole"
        return
    plans[path] = digest
    for needed in checks.get("paths", ()):
        if isinstance(needed, str) and not os.path.exists(root + needed):
            yield f"{needed} is not there"
