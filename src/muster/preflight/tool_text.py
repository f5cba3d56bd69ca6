"""Text of the kernel log, systemctl and ip as values; unreadable text is a value too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from muster.guard import xids
from muster.guard.xids import DriverLine

MAX_TEXT = 1024 * 1024
MAX_LINES = 1024


@dataclass(frozen=True)
class Unreadable:
    """Stands for a source without a usable answer; says why, in words for a table."""

    why: str


@dataclass(frozen=True)
class DriverLog:
    """The NVIDIA driver's lines in the kernel log since boot.

    Args:
        lines: in the log's order.
        repaired: when the host's marker says that it was repaired, in seconds of the kernel's clock.
    """

    lines: tuple[DriverLine, ...]
    repaired: float | None = None


@dataclass(frozen=True)
class NetworkLink:
    """A network interface."""

    name: str
    mtu: int
    up: bool
    addresses: tuple[str, ...]


def command_text(answer: object, tool: str) -> str | Unreadable:
    """Return what a tool printed, or why that is unusable.

    Args:
        answer: `{"rc", "text", "stderr", "truncated"}` of the host's program; may be anything.
        tool: its name, for messages.
    """
    if not isinstance(answer, Mapping):
        return Unreadable(f"{tool}: no answer")
    if "error" in answer:
        return Unreadable(first_line(answer["error"]) or f"{tool}: failed")
    text, complaint = answer.get("text"), first_line(answer.get("stderr"))
    if not isinstance(text, str):
        return Unreadable(f"{tool}: no output")
    if answer.get("truncated"):
        return Unreadable(f"{tool} printed too much, starting: {first_line(text)}")
    if answer.get("rc") not in (0, None) and not text.strip():
        return Unreadable(f"{tool} failed: {complaint or 'exit status ' + str(answer.get('rc'))}"[:300])
    return text[:MAX_TEXT]


def first_line(value: object, limit: int = 200) -> str:
    """Return the first line with anything on it, printable and at most `limit` characters; else nothing."""
    if not isinstance(value, str):
        return ""
    line = next((line.strip() for line in value[:4096].splitlines() if line.strip()), "")
    return "".join(char if char.isprintable() else "?" for char in line)[:limit]


def driver_log(answer: object) -> DriverLog | Unreadable:
    """Read the kernel log's lines about the health of GPUs and NVSwitches."""
    text = command_text(answer, "kernel log")
    if isinstance(text, Unreadable):
        return text
    if not isinstance(answer, Mapping) or answer.get("rc") != 0:
        complaint = answer.get("stderr") if isinstance(answer, Mapping) else ""
        return Unreadable(f"kernel log: {first_line(complaint) or 'not readable'}")
    repaired = answer.get("repaired")
    lines = (xids.driver_line(first_line(line, 1024)) for line in text.splitlines()[-MAX_LINES:])
    return DriverLog(
        tuple(line for line in lines if line is not None),
        float(repaired) if isinstance(repaired, (int, float)) and not isinstance(repaired, bool) else None,
    )


def links(answer: object) -> tuple[NetworkLink, ...] | Unreadable:
    """Read `ip -j addr show`."""
    text = command_text(answer, "ip")
    if isinstance(text, Unreadable):
        return text
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return Unreadable(f"ip -j printed: {first_line(text) or 'nothing'}")
    return tuple(_links(entries if isinstance(entries, list) else []))


def _links(entries: list[Any]) -> Iterator[NetworkLink]:
    for entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("ifname"), str):
            continue
        infos, flags, mtu = entry.get("addr_info"), entry.get("flags"), entry.get("mtu")
        held = [info.get("local") for info in infos if isinstance(info, Mapping)] if isinstance(infos, list) else []
        yield NetworkLink(
            name=entry["ifname"],
            mtu=mtu if isinstance(mtu, int) else 0,
            up=isinstance(flags, list) and "UP" in flags and "LOWER_UP" in flags,
            addresses=tuple(address for address in held if isinstance(address, str)),
        )


def properties(text: str) -> dict[str, str]:
    """Read lines of `Key=value`, quotes cut off: `systemctl show`, os-release."""
    pairs = (line.partition("=") for line in text[:MAX_TEXT].splitlines() if "=" in line)
    return {key.strip(): value.strip().strip('"') for key, _, value in pairs}


def meminfo(text: str) -> dict[str, int]:
    """Read /proc/meminfo: name -> bytes."""
    found = re.findall(r"^(\w{1,32}):\s{0,32}(\d{1,18}) kB$", text[:MAX_TEXT], re.M)
    return {name: int(value) * 1024 for name, value in found}
