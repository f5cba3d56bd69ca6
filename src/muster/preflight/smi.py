"""nvidia-smi's text as values; unreadable text is a value too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from muster.guard.host_judge import Device
from muster.preflight.tool_text import Unreadable, command_text, first_line

MAX_ROWS = 1024

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ABSENT = frozenset({"", "N/A", "[N/A]", "[Not Supported]", "Not Supported", "[Unknown Error]", "[Not Found]"})


@dataclass(frozen=True)
class GpuFacts:
    """One GPU as `nvidia-smi --query-gpu` describes it; None where nvidia-smi has no value."""

    index: int | None
    name: str | None
    uuid: str | None
    memory_mib: int | None
    driver: str | None
    mig: str | None
    ecc: str | None
    uncorrected: int | None
    retired_pending: str | None
    persistence: str | None
    fabric_state: str | None
    fabric_status: str | None
    throttle: int | None
    """Bits of clocks_event_reasons.active."""
    bus_id: str | None = None

    @property
    def device(self) -> Device:
        """The part of it that the guard judges too."""
        return Device(self.index, self.uuid, self.bus_id, self.fabric_state, self.fabric_status)


@dataclass(frozen=True)
class App:
    """A process that computes on a GPU."""

    pid: int
    name: str
    gpu: str
    cgroup: str = ""


def csv_rows(text: str, expected: str, *, wide: str = "") -> list[dict[str, str]] | Unreadable:
    """Return the rows of nvidia-smi's CSV by column name, units cut off the names.

    Args:
        text: the output, header first.
        expected: a column that must be there; its absence means a message instead of a table.
        wide: the column whose values may hold commas.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return Unreadable("nvidia-smi printed nothing")
    names = [name.split(" [")[0].strip() for name in lines[0].split(",")]
    if expected not in names or len(lines) > MAX_ROWS:
        return Unreadable(f"nvidia-smi printed: {first_line(lines[0])}")
    rows = []
    for number, line in enumerate(lines[1:], 1):
        values = [value.strip() for value in line.split(",")]
        extra = len(values) - len(names)
        if extra > 0 and wide in names:
            place = names.index(wide)
            values[place : place + extra + 1] = [", ".join(values[place : place + extra + 1])]
        if len(values) != len(names):
            return Unreadable(f"row {number} of nvidia-smi has {len(values)} of {len(names)} columns")
        rows.append(dict(zip(names, values, strict=True)))
    return rows


def gpus(answer: object) -> tuple[GpuFacts, ...] | Unreadable:
    """Read `nvidia-smi --query-gpu=... --format=csv`; no GPU at all is an empty tuple."""
    text = command_text(answer, "nvidia-smi")
    if isinstance(text, Unreadable):
        return text
    if text.strip().lower().startswith("no devices were found"):
        return ()
    rows = csv_rows(text, "uuid")
    if isinstance(rows, Unreadable):
        return rows
    return tuple(
        GpuFacts(
            index=_integer(row.get("index")),
            name=_word(row.get("name")),
            uuid=_word(row.get("uuid")),
            memory_mib=_integer(row.get("memory.total")),
            driver=_word(row.get("driver_version")),
            mig=_word(row.get("mig.mode.current")),
            ecc=_word(row.get("ecc.mode.current")),
            uncorrected=_integer(row.get("ecc.errors.uncorrected.volatile.total")),
            retired_pending=_word(row.get("retired_pages.pending")),
            persistence=_word(row.get("persistence_mode")),
            fabric_state=_word(row.get("fabric.state")),
            fabric_status=_word(row.get("fabric.status")),
            throttle=_integer(row.get("clocks_event_reasons.active", row.get("clocks_throttle_reasons.active"))),
            bus_id=_word(row.get("pci.bus_id")),
        )
        for row in rows
    )


def apps(answer: object) -> tuple[App, ...] | Unreadable:
    """Read `nvidia-smi --query-compute-apps`."""
    text = command_text(answer, "nvidia-smi")
    if isinstance(text, Unreadable):
        return text
    rows = csv_rows(text, "pid", wide="process_name")
    if isinstance(rows, Unreadable):
        return rows
    cgroups = answer.get("cgroups") if isinstance(answer, Mapping) else None
    groups = cgroups if isinstance(cgroups, Mapping) else {}
    return tuple(
        App(
            pid=_integer(row["pid"]) or 0,
            name=row.get("process_name", ""),
            gpu=row.get("gpu_uuid", ""),
            cgroup=str(groups.get(row["pid"], "")),
        )
        for row in rows
    )


def remapped(answer: object) -> dict[str, tuple[bool, bool]] | Unreadable:
    """Read `nvidia-smi --query-remapped-rows`: GPU -> (a remap is pending, a remap failed)."""
    text = command_text(answer, "nvidia-smi")
    if isinstance(text, Unreadable):
        return text
    rows = csv_rows(text, "gpu_uuid")
    if isinstance(rows, Unreadable):
        return rows
    return {
        row["gpu_uuid"]: (
            _is_set(row.get("remapped_rows.pending")),
            _is_set(row.get("remapped_rows.failure")),
        )
        for row in rows
    }


def nvlinks(answer: object) -> dict[int, tuple[int, int]] | Unreadable:
    """Read `nvidia-smi nvlink -s`: GPU index -> (links up, links)."""
    text = command_text(answer, "nvidia-smi nvlink")
    if isinstance(text, Unreadable):
        return text
    links: dict[int, tuple[int, int]] = {}
    current = None
    for line in text.splitlines():
        gpu = re.match(r"GPU (\d{1,4}):", line)
        link = re.match(r"\s+Link \d{1,4}: (.*)", line)
        if gpu:
            current = int(gpu.group(1))
            links[current] = (0, 0)
        elif link and current is not None:
            up, count = links[current]
            links[current] = (up + bool(re.match(r"\d+(\.\d+)? GB/s", link.group(1).strip())), count + 1)
    if not links and text.strip():
        return Unreadable(f"nvidia-smi nvlink printed: {first_line(text)}")
    return links


def topology(answer: object) -> dict[tuple[int, int], str] | Unreadable:
    """Read `nvidia-smi topo -m`: (GPU, GPU) -> how they are connected (`NV18`, `SYS`, ...)."""
    text = command_text(answer, "nvidia-smi topo")
    if isinstance(text, Unreadable):
        return text
    columns: list[int] = []
    ways: dict[tuple[int, int], str] = {}
    for line in _ANSI.sub("", text).splitlines():
        cells = [cell.strip() for cell in line.split("\t")]
        named = [re.fullmatch(r"GPU(\d{1,4})", cell) for cell in cells]
        if not columns:
            columns = [int(match.group(1)) for match in named if match]
        elif named[0]:
            row = int(named[0].group(1))
            ways.update({(row, to): cell for to, cell in zip(columns, cells[1:], strict=False) if to != row})
    if not columns:
        return Unreadable(f"nvidia-smi topo printed: {first_line(text) or 'nothing'}")
    return ways


def _word(value: str | None) -> str | None:
    return None if value is None or value in _ABSENT else value[:200]


def _integer(value: str | None) -> int | None:
    """Return a number with or without a unit, decimal or 0x-hexadecimal."""
    match = re.match(r"0x([0-9a-fA-F]{1,16})$|(\d{1,18})(?: |$)", (value or "").strip())
    if not match:
        return None
    return int(match.group(1), 16) if match.group(1) else int(match.group(2))


def _is_set(value: str | None) -> bool:
    return (value or "").strip().lower() in ("1", "yes", "pending")
