"""The simulated GPUs of one sandbox host: the recorded output of a real machine, changed by one JSON file.

Stdlib only; runs on the host's own Python. `muster.sandbox.simulated_gpus` writes the file and describes it.
A preflight starts these tools a dozen times on every host of a machine with few cores, so slow imports are avoided.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    State = dict[str, Any]

_STATE = "/etc/muster-sandbox/gpus.json"
_RECORDED = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "recorded")

# Bits of clocks_event_reasons.active, as NVML numbers them.
REASONS = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clocks_setting": 0x100,
}

_LEAF = re.compile(r"^(\s*)<(\w+)>([^<]*)</\2>$")
_OPEN = re.compile(r"^\s*<(\w+)[^/>]*>(?:N/A<(\w+)>([^<]*)</\2>)?$")
_CLOSE = re.compile(r"^\s*</(\w+)>$")


def load() -> State:
    """Return the host's JSON file; a broken or missing one is an installation error worth a loud end."""
    loaded: State = json.loads(read(os.environ.get("MUSTER_SANDBOX_GPUS", _STATE)))
    return loaded


def read(path: str) -> str:
    """Return a file's text."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def recorded(name: str) -> str:
    """Return one recorded text."""
    return read(os.path.join(_RECORDED, name))


class Gpu:
    """One GPU: the recorded XML element as lines, readable and changeable by path, its formatting kept."""

    def __init__(self, block: str, about: dict[str, Any], state: State) -> None:
        self.about = about
        self.index: int = about["index"]
        self.lines = block.splitlines()
        self.at: dict[str, int] = {}
        stack: list[str] = []
        for number, line in enumerate(self.lines):
            leaf, opened, closed = _LEAF.match(line), _OPEN.match(line), _CLOSE.match(line)
            if leaf:
                self.at.setdefault("/".join([*stack[1:], leaf.group(2)]), number)
            elif closed:
                stack.pop()
            elif opened:
                stack.append(opened.group(1))
        self._identify(about, state)
        for path, value in about.get("set", {}).items():
            self.set(path, value)

    def get(self, path: str) -> str:
        """Return the text at a path such as `fabric/state`; N/A when the recording has none."""
        number = self.at.get(path)
        return "N/A" if number is None else self._leaf(number)[2]

    def _leaf(self, number: int) -> tuple[str, str, str]:
        match = _LEAF.match(self.lines[number])
        if match is None:
            raise ValueError(self.lines[number])
        return match.group(1), match.group(2), match.group(3)

    def set(self, path: str, value: str) -> None:
        """Change the text at a path.

        Raises KeyError for a path that the recording does not have: a test's typing mistake must not pass silently.
        """
        number = self.at[path]
        indent, tag, _ = self._leaf(number)
        self.lines[number] = f"{indent}<{tag}>{value}</{tag}>"

    def _identify(self, about: dict[str, Any], state: State) -> None:
        self.lines[0] = re.sub(r'id="[^"]*"', 'id="' + about["bus_id"] + '"', self.lines[0])
        self.set("product_name", about["name"])
        self.set("uuid", about["uuid"])
        self.set("minor_number", str(self.index))
        self.set("pci/pci_bus_id", about["bus_id"])
        self.set("pci/pci_bus", about["bus_id"][9:11])
        self.set("pci/pci_device", about["bus_id"][12:14])
        self.set("gsp_firmware_version", state["driver_version"])
        total = int(self.get("fb_memory_usage/total").split()[0])
        if total != about["memory_mib"]:
            reserved = int(self.get("fb_memory_usage/reserved").split()[0])
            self.set("fb_memory_usage/total", f"{about['memory_mib']} MiB")
            self.set("fb_memory_usage/free", f"{about['memory_mib'] - reserved + 1} MiB")
        used = sum(p["used_mib"] for p in state.get("processes", []) if p["gpu"] == self.index)
        if used:
            free = int(self.get("fb_memory_usage/free").split()[0])
            self.set("fb_memory_usage/used", f"{used} MiB")
            self.set("fb_memory_usage/free", f"{max(0, free - used)} MiB")
        for name, bit in REASONS.items():
            # The recording's own idle bit differs between its two files; only faults are written over it.
            if bit != 1 and int(about["event_reasons"], 16) & bit:
                self.set("clocks_event_reasons/clocks_event_reason_" + name, "Active")

    def text(self, state: State) -> str:
        """Return its XML element, with the processes that the JSON file gives it."""
        out = []
        for line in self.lines:
            out.append(line)
            if line.strip() == "<processes>":
                for process in state.get("processes", []):
                    if process["gpu"] == self.index:
                        out += _process_xml(process)
        return "\n".join(out)


def _process_xml(process: dict[str, Any]) -> list[str]:
    fields = [
        ("gpu_instance_id", "N/A"),
        ("compute_instance_id", "N/A"),
        ("pid", process["pid"]),
        ("type", "C"),
        ("process_name", process["name"]),
        ("used_memory", f"{process['used_mib']} MiB"),
    ]
    inner = [f"\t\t\t\t<{tag}>{value}</{tag}>" for tag, value in fields]
    return ["\t\t\t<process_info>", *inner, "\t\t\t</process_info>"]


def blocks() -> tuple[str, list[str], str]:
    """Return the recording as (text before the GPUs, its GPU elements, text after them)."""
    whole = recorded("h200x2-q.xml")
    parts = re.split(r"(?ms)^(\t<gpu id=.*?^\t</gpu>\n)", whole)
    return parts[0], [part.rstrip("\n") for part in parts[1::2]], parts[-1]


def gpus(state: State) -> list[Gpu]:
    """Return the host's GPUs."""
    elements = blocks()[1]
    return [Gpu(elements[about["index"] % len(elements)], about, state) for about in state.get("gpus", [])]


def misbehave(state: State, command: str) -> None:
    """Fail as the JSON file's `commands` entry says; return when it has none for this command."""
    fault = state.get("commands", {}).get(command)
    if not fault:
        return
    time.sleep(fault.get("hang_s", 0))
    sys.stdout.write(fault.get("stdout", ""))
    sys.stderr.write(fault.get("stderr", ""))
    sys.stdout.flush()
    if "exit" in fault:
        sys.exit(fault["exit"])


def kernel_lines(state: State) -> list[tuple[float, str]]:
    """Return what the simulated driver wrote to the kernel log since this boot: (seconds since boot, message)."""
    try:
        boot = read("/proc/sys/kernel/random/boot_id").strip()
    except OSError:
        boot = ""
    out = [(2.0, "nvidia: loading out-of-tree module taints kernel.")]
    out.append((2.5, "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  " + state.get("driver_version", "")))
    bus = {about["index"]: about["bus_id"] for about in state.get("gpus", [])}
    for entry in state.get("xids", []):
        if entry.get("boot_id", boot) == boot:
            where = bus.get(entry["gpu"], entry.get("bus_id", "00000000:00:00.0"))
            head = f"NVRM: Xid (PCI:{where[4:].rsplit('.', 1)[0]}): {entry['xid']}, "
            out.append((entry.get("at", 60.0), head + entry["text"]))
    out += [(61.0, line) for line in state.get("kernel_log", [])]
    return out
