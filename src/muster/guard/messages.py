"""What guards say to each other: a member's Report, the head's View, and the Failure that both carry. Pure data.

Received messages are checked by type and length; anything else raises ValueError and is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# Phases of the group, as the head sees it.
HELD = "held"
"""Nothing starts: stopped by an operator, or failed (budget spent)."""
GATHER = "gather"
RUN = "run"
DRAIN = "drain"
"""A deliberate stop: requests in flight are still answered."""
ABORT = "abort"
REFUSED = "refused"
"""Not a phase of the group: this head refuses the sender."""

PHASES = (HELD, GATHER, RUN, DRAIN, ABORT, REFUSED)

# The state of a member's children.
NONE = "none"
RUNNING = "running"
ENDED = "ended"

CHILD_STATES = (NONE, RUNNING, ENDED)

TEXT_LIMIT = 16_000
"""Characters of log that travel with a failure."""


@dataclass(frozen=True)
class Failure:
    """Why a generation ended, reported once, by the host where it began."""

    host: str
    reason: str
    generation: str = ""
    process: str = ""
    lines: str = ""
    at: float = 0.0
    """Monotonic seconds on the head."""
    digest: str = ""
    """Of the plan that failed; set by the head."""


@dataclass(frozen=True)
class Report:
    """A member's report to the head. `generation` is the one it learned from the head; empty before that."""

    host: str
    group: str
    digest: str
    engine: str
    instance: str
    seq: int
    generation: str = ""
    child: str = NONE
    blocked: str = ""
    """Why this host cannot start a child; empty when it can."""
    failure: Failure | None = None
    leaving: bool = False
    """Its unit is being stopped on purpose."""
    previous: str = ""
    """How the guard before this one ended, if known."""
    detail: str = ""
    """For people: what its children are doing."""
    loads: str = ""
    """How long each loader would take on this host, as `loader_choice` writes it; empty where nothing was measured."""


@dataclass(frozen=True)
class View:
    """The head's answer. `instance` and `seq` name the report it answers."""

    instance: str
    seq: int
    generation: str
    phase: str
    reason: str = ""
    deliberate: bool = False
    """The generation ends on purpose: nothing failed, and no host keeps a failure bundle."""
    loader: str = ""
    """In `run`: what every host loads the weights with; empty for vLLM's own default."""


def to_wire(message: object) -> dict[str, Any]:
    """A message as JSON-ready data, with its texts cut so that it fits a frame and its receiver takes it."""
    assert isinstance(message, (Report, View)), message
    data = _cut(asdict(message))
    if data.get("failure") is not None:
        data["failure"] = _cut(data["failure"])
    return data


def cut_to_encoded(text: str, size: int, keep_end: bool = False) -> str:
    """The start of a text (or its end) that takes at most `size` bytes as JSON.

    Counted as encoded: JSON writes a control character or a letter beyond ASCII as 6 or 12 bytes.
    """
    if 12 * len(text) <= size or len(json.dumps(text)) - 2 <= size:
        return text
    fits, low, high = 0, 0, min(len(text), size)
    while low <= high:
        fits = (low + high) // 2
        part = text[len(text) - fits :] if keep_end else text[:fits]
        if len(json.dumps(part)) - 2 <= size:
            low = fits + 1
        else:
            high = fits - 1
    return text[len(text) - high :] if keep_end else text[:high]


def _cut(data: dict[str, Any]) -> dict[str, Any]:
    cut = dict(data)
    for name, limit in _LIMITS.items():
        if isinstance(cut.get(name), str):
            keep_end = name == "lines"
            text = cut[name][-limit:] if keep_end else cut[name][:limit]
            cut[name] = cut_to_encoded(text, _ENCODED_LIMITS[name], keep_end)
    return cut


def report_from(data: Mapping[str, Any]) -> Report:
    """Raises ValueError on anything that is not exactly a report."""
    values = _checked(Report, data)
    failure = values.pop("failure")
    if failure is not None:
        if not isinstance(failure, Mapping):
            raise ValueError("failure is no object")
        failure = Failure(**_checked(Failure, failure))
    if values["child"] not in CHILD_STATES:
        raise ValueError(f"child is {values['child']!r}")
    return Report(failure=failure, **values)


def view_from(data: Mapping[str, Any]) -> View:
    """Raises ValueError on anything that is not exactly a view."""
    values = _checked(View, data)
    if values["phase"] not in PHASES:
        raise ValueError(f"phase is {values['phase']!r}")
    return View(**values)


def failure_from(data: Mapping[str, Any]) -> Failure:
    """Raises ValueError on anything that is not exactly a failure."""
    return Failure(**_checked(Failure, data))


_LIMITS = {"lines": TEXT_LIMIT, "blocked": 2000, "reason": 2000, "detail": 2000, "previous": 256}
"""Characters of a text; 256 for those not named."""
_ENCODED_LIMITS = {"lines": 36 * 1024, "blocked": 4096, "reason": 4096, "detail": 4096, "previous": 1024}
"""Bytes of the same texts as JSON: together well below a frame's limit, with room for the names."""


def _checked(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, str] = {name: str(hint) for name, hint in kind.__annotations__.items()}
    if not isinstance(data, Mapping) or set(data) != set(kinds):
        raise ValueError(f"not a {kind.__name__}")
    for name, value in data.items():
        hint = kinds[name]
        if hint == "str":
            good = isinstance(value, str) and len(value) <= _LIMITS.get(name, 256)
        elif hint == "int":
            good = type(value) is int and 0 <= value < 2**53
        elif hint == "bool":
            good = type(value) is bool
        elif hint == "float":
            good = type(value) in (int, float) and abs(value) < 1e12
        else:
            good = True  # the failure: checked by its own type
        if not good:
            raise ValueError(f"{name} is out of bounds")
    return dict(data)
