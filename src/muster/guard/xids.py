"""Which lines of the NVIDIA driver in the kernel log (Xids, and SXids of NVSwitches) keep a group from starting. Pure.

Judged by the driver's own words where it has them (fatal, recovery action), by NVIDIA's catalogue of codes otherwise,
and against the last repair.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .host_judge import FAIL, OK, REPAIRED, WARN, Device, Finding

_SECONDS = re.compile(r"^\s*\[\s*(\d{1,12}\.\d{1,9})\]")
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([^)]{0,64})\): ?(\d{1,4})\b,?\s*(.*)")
_SXID = re.compile(r"nvidia-nvswitch\d{0,3}: SXid \((?:PCI:)?([^)]{0,64})\): ?(\d{1,6})\b,?\s*(.*)")
_LOADED = re.compile(r"NVRM: loading NVIDIA\b")
_ACTION = re.compile(r"recovery action changed from .* to \S* ?\((.*)\)")
_MINOR = re.compile(r"\bnon-?fatal\b", re.IGNORECASE)
_FATAL = re.compile(r"\bfatal\b", re.IGNORECASE)

# NVIDIA's Xid catalogue: 48 double-bit ECC, 61/62 microcontroller, 64 row remap failed, 79 off the bus, 95 uncontained
# ECC, 119/120 GSP does not answer, 140 unrecovered ECC.
FATAL_XIDS = frozenset({48, 61, 62, 64, 79, 95, 119, 120, 140})
# NVLink errors say themselves how bad they are: 74 (Hopper), 144 to 150 (NVLink 5).
NVLINK_XIDS = frozenset({74, 144, 145, 146, 147, 148, 149, 150})
# Caused by a program's own fault, or by killing it: 13 exception, 31 page fault, 43 stopped, 45 cleaned up, 94 a
# contained ECC error.
APPLICATION_XIDS = frozenset({13, 31, 43, 45, 94})
ROW_REMAPPED = 63
RECOVERY_ACTION = 154

NEEDS_RESET, NEEDS_REBOOT, ASKS_RESET, MINOR, HARMLESS, CLEARS = (
    "reset",
    "reboot",
    "asks",
    "minor",
    "harmless",
    "clears",
)


@dataclass(frozen=True)
class DriverLine:
    """One line of the driver: an Xid, an SXid of an NVSwitch, or the driver being loaded (`code` 0).

    `severity` is NEEDS_RESET, NEEDS_REBOOT, ASKS_RESET, MINOR, HARMLESS or CLEARS. `seconds` is of the kernel's clock,
    None where the line carries another one.
    """

    kind: str
    code: int
    device: str
    words: str
    severity: str
    seconds: float | None
    line: str

    @property
    def blocks(self) -> bool:
        """Whether no rank may run on this host until a repair."""
        return self.severity in (NEEDS_RESET, NEEDS_REBOOT)

    def __str__(self) -> str:
        text = f"{self.kind} {self.code} on {self.device}"
        return f"{text} ({self.words})" if self.words and self.severity != HARMLESS else text


def driver_line(line: str) -> DriverLine | None:
    """Read one line of the kernel log; None for a line that says nothing about the health of GPUs or NVSwitches."""
    line = line.strip()[:1024]
    time = _SECONDS.match(line)
    seconds = float(time.group(1)) if time else None
    xid, sxid = _XID.search(line), _SXID.search(line)
    if xid is not None:
        device, code, rest = xid.group(1), int(xid.group(2)), xid.group(3)
        words, severity = _severity(code, rest)
        return DriverLine("Xid", code, device, words, severity, seconds, line)
    if sxid is not None:
        device, code, rest = sxid.group(1), int(sxid.group(2)), sxid.group(3)
        if _MINOR.search(rest):
            return DriverLine("SXid", code, device, rest[:80], HARMLESS, seconds, line)
        # Lines of detail (severity, data) follow the one that names the error.
        return DriverLine("SXid", code, device, rest[:80], NEEDS_RESET, seconds, line) if _FATAL.search(rest) else None
    if _LOADED.search(line):
        return DriverLine("driver", 0, "", "", CLEARS, seconds, line)
    return None


def _severity(code: int, rest: str) -> tuple[str, str]:
    """Return an Xid's words for people, and its severity: the driver's word where it has one, else by number."""
    words = re.sub(r"^(pid=[^,]*, *)?(name=[^,]*, *)?", "", rest)
    words = re.sub(r" ?\(0x[0-9a-f]+[,) ].*$", "", words).strip()[:80]
    action = _ACTION.search(rest)
    if code == RECOVERY_ACTION and action:
        asked = action.group(1)
        if asked == "None":
            return asked, CLEARS
        return asked, NEEDS_REBOOT if "Reboot" in asked else NEEDS_RESET
    if code in NVLINK_XIDS:
        if _MINOR.search(rest):
            return words, HARMLESS
        return words, NEEDS_RESET if _FATAL.search(rest) or code == 74 else MINOR
    if code == 79:
        return words, NEEDS_REBOOT
    if code in FATAL_XIDS:
        return words, NEEDS_RESET
    if code == ROW_REMAPPED:
        return words, ASKS_RESET
    if code in APPLICATION_XIDS:
        return words, NEEDS_RESET if re.search(r"(?<!D-)\bRST: Yes", rest) else HARMLESS
    return words, HARMLESS if _MINOR.search(rest) else MINOR


def standing(lines: Iterable[DriverLine], repaired: float | None = None) -> list[DriverLine]:
    """Return the lines that no repair has answered, oldest first, one per device and code.

    Args:
        lines: in the order of the log.
        repaired: when the last repair was, in seconds of the kernel's clock; None when none is known.

    A reboot begins a new log. Loading the driver, and a recovery action that returns to None, answer what came before.
    """
    kept: dict[tuple[str, str, int], DriverLine] = {}
    for each in lines:
        if each.severity == CLEARS:
            if each.kind == "driver":
                kept.clear()
            else:
                kept = {key: one for key, one in kept.items() if key[:2] != ("Xid", each.device)}
        elif repaired is None or each.seconds is None or each.seconds > repaired:
            key = (each.kind, each.device, each.code)
            kept.pop(key, None)
            kept[key] = each
    return list(kept.values())


def kernel_log(lines: Iterable[DriverLine], repaired: float | None = None, unused: Iterable[Device] = ()) -> Finding:
    """Judge the driver's lines since boot.

    Args:
        lines, repaired: as for `standing`.
        unused: GPUs of this host that the group does not use; a fault of theirs is a warning.
    """
    check, needed, again = "gpu.xid", "no unanswered error since boot", "if it comes back, have the GPU replaced"
    left = standing(lines, repaired)
    fatal = blocking(left, unused)
    if fatal:
        reboot = any(each.severity == NEEDS_REBOOT for each in fatal)
        switch = any(each.kind == "SXid" for each in fatal)
        if reboot:
            fix = f"reboot the host; {again}"
        else:
            what = "all GPUs and NVSwitches (nvidia-smi --gpu-reset)" if switch else "the GPU (nvidia-smi --gpu-reset)"
            fix = f"reset {what} or reboot, then run deploys/resume.py, or `touch {REPAIRED}` on the host; {again}"
        return Finding(check, FAIL, _listed(fatal), needed, fix)
    asks = [each for each in left if each.severity == ASKS_RESET]
    if asks:
        fix = f"reset the GPU (nvidia-smi --gpu-reset) when it is idle, then `touch {REPAIRED}` on the host"
        return Finding(check, WARN, f"{_listed(asks)}: the driver asks for a reset", needed, fix)
    rest = [each for each in left if each.severity != HARMLESS]
    if rest:
        return Finding(check, WARN, _listed(rest), needed, "journalctl -k | grep Xid; NVIDIA's Xid catalogue")
    return Finding(check, OK, f"{len(left)} harmless" if left else "none since boot")


def blocking(left: Iterable[DriverLine], unused: Iterable[Device] = ()) -> list[DriverLine]:
    """Return the lines, of those that stand, that keep the group from running; a fault of an unused GPU does not."""
    others = {_bus(each.bus_id) for each in unused if each.bus_id}
    return [each for each in left if each.blocks and not (each.kind == "Xid" and _bus(each.device) in others)]


def _listed(lines: Sequence[DriverLine]) -> str:
    return ", ".join(dict.fromkeys(str(each) for each in lines))[:300]


def _bus(text: str) -> str:
    """Return a PCI address as the kernel log writes it: `0000:9c:00` of `00000000:9C:00.0`."""
    parts = text.lower().split(".")[0].split(":")
    return ":".join([parts[0][-4:], *parts[1:]]) if len(parts) == 3 else text.lower()
