"""Which flags each version of vLLM takes: what came, went or was renamed, and what it stops at."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from muster.errors import Refusal
from muster.plan import cache_size
from muster.plan.layout import Layout
from muster.spec.strategy import FlagValue

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Gone:
    """A flag that a version of vLLM no longer takes."""

    since: Version
    instead: str | None
    """The flag that replaces it, or None to drop it."""
    why: str


# Read from the wheels 0.12.0, 0.20.2, 0.23.0, 0.26.0, 0.32.0 and 0.33.0.
GONE: Mapping[str, Gone] = {
    "disable-log-requests": Gone((0, 20, 0), None, "request logging is off by default now"),
    "swap-space": Gone((0, 20, 0), None, "the engine no longer swaps the cache"),
    "task": Gone((0, 20, 0), "runner", "renamed"),
}
SINCE: Mapping[str, Version] = {
    "nnodes": (0, 12, 0),
    "headless": (0, 12, 0),
    "shutdown-timeout": (0, 20, 0),
    "enable-ep-weight-filter": (0, 20, 0),
    "numa-bind": (0, 20, 0),
    "watchdog-config": (0, 33, 0),
}
NO_INDUCTOR_SWITCH: Version = (0, 12, 0)
"""From here on --compilation-config takes `backend` in the place of `use_inductor` (vLLM pull request 26502), which the
parsers of 0.32.0 and 0.33.0 refuse."""
OPTIONAL: Mapping[str, str] = {
    "shutdown-timeout": "a plain unit that is stopped drops its requests",
    "watchdog-config": "the bundle of a stall has no stacks",
}
"""Flags that a default of muster asks for: an older version goes without, and the plan says what that means."""
FORKS: Version = (0, 33, 0)
"""From here on vLLM makes its processes safe to fork: it ends OpenMP's idle threads first."""
FP8_CACHE_WITH_DCP: Version = (0, 26, 0)
SECURITY_FLOOR: Version = (0, 32, 0)


def version_of(text: str) -> Version:
    """Return (major, minor, patch) of a version; `rc2`, or a local part such as `+cpu`, does not matter."""
    numbers = re.findall(r"(?:^|(?<=\.))\d+", text.partition("+")[0])[:3]
    major, minor, patch = (int(number) for number in [*numbers, "0", "0", "0"][:3])
    return major, minor, patch


def check_version(version: str, floor: str, *, recipe: str) -> None:
    """Refuse a vLLM older than the recipe's floor.

    Raises:
        Refusal: with both versions.
    """
    if version_of(version) < version_of(floor):
        raise Refusal(
            f"vllm_version is {version} with recipe {recipe}",
            needed=f"vLLM {floor} or newer",
            fix=f"set vllm_version to {floor} or newer, or drop the setting",
        )


def translate(flags: Mapping[str, FlagValue], version: str) -> tuple[dict[str, FlagValue], list[str]]:
    """Return the flags this version takes, and a line for each that was dropped, renamed or is missing.

    Raises:
        Refusal: a flag this version does not have yet.
    """
    at, kept, notes = version_of(version), dict[str, FlagValue](), list[str]()
    for name, value in flags.items():
        gone = GONE.get(name)
        if gone and at >= gone.since:
            if gone.instead:
                kept[gone.instead] = value
                notes.append(f"--{name} is --{gone.instead} in vLLM {version}")
            else:
                notes.append(f"--{name} dropped: vLLM {version} does not take it ({gone.why})")
            continue
        since = SINCE.get(name)
        if since and at < since and name in OPTIONAL:
            notes.append(f"--{name} left out: vLLM {version} does not have it yet; {OPTIONAL[name]}")
            continue
        if since and at < since:
            raise Refusal(
                f"--{name} planned for vLLM {version}",
                needed=f"vLLM {'.'.join(map(str, since))} or newer for this flag",
                fix="raise vllm_version, or drop the setting that asks for it",
            )
        kept[name] = value
        if name == "compilation-config" and at >= NO_INDUCTOR_SWITCH:
            kept[name] = _by_backend(str(value))
            if kept[name] != value:
                notes.append(f"--{name}: use_inductor is backend in vLLM {version}")
    return kept, notes


def _by_backend(value: str) -> str:
    """Return a --compilation-config that names the backend, where it says whether to use the inductor."""
    try:
        config = json.loads(value)
    except ValueError:
        return value
    if not isinstance(config, dict) or "use_inductor" not in config:
        return value
    chosen = "inductor" if config.pop("use_inductor") else "eager"
    return json.dumps({"backend": chosen, **config})


def check_flags(flags: Mapping[str, FlagValue], layout: Layout, version: str) -> None:
    """Refuse flag combinations that this version is known to stop at.

    Raises:
        Refusal: fp8 cache with decode context parallel before 0.26.
    """
    if cache_size.is_fp8(flags) and layout.dcp > 1 and version_of(version) < FP8_CACHE_WITH_DCP:
        raise Refusal(
            f"--kv-cache-dtype fp8 with decode context parallel size {layout.dcp} on vLLM {version}",
            needed="vLLM 0.26 or newer: older ones stop at this combination",
            fix="raise vllm_version, or set decode_context_parallel_size to 1",
        )
