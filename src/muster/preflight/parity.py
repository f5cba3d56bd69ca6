"""What must be the same on all hosts: one table, the odd one out marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muster.preflight.host_report import HostReport, Installed
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Level, Verdict

NONE = "-"
# A group cannot run with these differences, and no deploy removes them.
FATAL = frozenset({"product", "count"})
FIXES = {
    "driver": "install one driver on all hosts, and its Fabric Manager; reboot",
    "kernel": "update the distribution on the odd host and reboot",
    "product": "take the odd host out of the inventory",
    "count": "see gpu.count of the odd host",
    "python": "set python_version; uv brings the same Python everywhere",
    "revision": "set revision to a commit and run the deploy",
}
INSTALLED = ("vllm", "torch", "nccl", "ray")


@dataclass(frozen=True)
class ParityRow:
    """One property on all hosts.

    Args:
        name: `driver`, `kernel`, ...
        values: host -> value; `-` where it has none.
        usual: the value of most hosts, None when no value has most of them.
        odd: hosts that differ from the usual one; all of them when there is none.
    """

    name: str
    values: Mapping[str, str]
    usual: str | None
    odd: tuple[str, ...]


def compare(reports: Sequence[HostReport]) -> tuple[ParityRow, ...]:
    """Return the parity table of the hosts that answered."""
    return tuple(_row(name, values) for name, values in _values(reports).items())


def _values(reports: Sequence[HostReport]) -> dict[str, dict[str, str]]:
    names = ("driver", "kernel", "product", "count", "python", *INSTALLED, "revision", "config")
    table: dict[str, dict[str, str]] = {name: {} for name in names}
    for report in reports:
        if report.unreached is not None:
            continue
        gpus = () if isinstance(report.gpus, Unreadable) else report.gpus
        system = None if isinstance(report.system, Unreadable) else report.system
        installed = report.installed if isinstance(report.installed, Installed) else None
        mine = {
            "driver": report.driver,
            "kernel": system.kernel if system else None,
            "product": ", ".join(sorted({gpu.name or "unknown" for gpu in gpus})),
            "count": None if isinstance(report.gpus, Unreadable) else str(len(gpus)),
            "python": (installed.python if installed else None) or (system.python if system else None),
            "revision": report.revision,
            "config": report.digest,
            **{name: installed.versions.get(name) if installed else None for name in INSTALLED},
        }
        for name in names:
            table[name][report.host] = mine[name] or NONE
    return table


def _row(name: str, values: dict[str, str]) -> ParityRow:
    # What a host could not tell makes no other host odd; its own checks say why.
    counts = Counter(value for value in values.values() if value != NONE).most_common(2)
    usual: str | None = counts[0][0] if counts else NONE
    if len(counts) == 2 and counts[0][1] == counts[1][1]:
        usual = None
    return ParityRow(name, values, usual, tuple(host for host, value in values.items() if value != usual))


def verdicts(rows: Sequence[ParityRow]) -> tuple[Verdict, ...]:
    """Return one verdict for each property and host; the odd ones do not pass."""
    return tuple(_verdict(row, host, value) for row in rows for host, value in row.values.items())


def _verdict(row: ParityRow, host: str, value: str) -> Verdict:
    check = f"parity.{row.name}"
    if host not in row.odd:
        return Verdict(check, "ok", value, host=host)
    level: Level = "fail" if row.name in FATAL else "warn"
    others = sorted({other for other in row.values.values() if other != value})
    needed = f"{row.usual}, as on the other hosts" if row.usual else f"one value; others have {', '.join(others)}"
    return Verdict(check, level, value, needed, FIXES.get(row.name, "run the deploy; it brings hosts to one"), host)
