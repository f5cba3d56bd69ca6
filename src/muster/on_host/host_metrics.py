"""What the node exporter cannot know of a GPU host, as one file for its textfile collector: GPUs, driver, weights.

A timer runs it, as a user of its own that may change nothing but that file. Each source costs its own lines alone: a
hung driver leaves the weights, and the file's age shows when nothing was measured any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

from muster.on_host import run_command, weights_on_disk, whole_files
from muster.on_host.probe_gpus import gpu_query, nvidia_csv
from muster.on_host.probe_sources import answered, tool

Json = dict[str, Any]
Rows = list[tuple[dict[str, str], float]]

FIELDS = {
    "utilization.gpu": ("muster_gpu_utilization_ratio", 0.01, "Share of time with a kernel on the GPU."),
    "memory.used": ("muster_gpu_memory_used_bytes", 2.0**20, "Memory in use."),
    "memory.total": ("muster_gpu_memory_total_bytes", 2.0**20, "Memory there is."),
    "power.draw": ("muster_gpu_power_watts", 1.0, "Power drawn."),
    "power.limit": ("muster_gpu_power_limit_watts", 1.0, "Power allowed."),
    "temperature.gpu": ("muster_gpu_temperature_celsius", 1.0, "Temperature of the GPU."),
    "clocks.sm": ("muster_gpu_sm_clock_hertz", 1e6, "Clock of the multiprocessors."),
    "ecc.errors.corrected.volatile.total": ("muster_gpu_ecc_corrected", 1.0, "Corrected ECC errors since the reset."),
    "ecc.errors.uncorrected.volatile.total": (
        "muster_gpu_ecc_uncorrected",
        1.0,
        "Uncorrected ECC errors since the reset.",
    ),
}
"""Field of `nvidia-smi --query-gpu` -> metric, unit in its base unit, help."""
REASONS = {
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "hw_power_brake": 0x80,
}
"""Why clocks are lowered, by the bit of `clocks_event_reasons.active`; idle and chosen clocks are no throttling."""
MISMATCH = "version mismatch"


def main(request: Json) -> Json:
    """Measure and write the file.

    Args:
        request: `out` (path of the file), `weights` [{directory, manifest, group}] (revisions that groups serve from).

    Raises:
        OSError: the file cannot be written.
    """
    blocks = [block for source in (gpus, rows_remapped, nvlinks, driver) for block in _blocks(source)]
    blocks += weights(request.get("weights", ()))
    whole_files.write_whole(request["out"], "".join(blocks).encode(), 0o644)
    return {}


def gpus() -> list[str]:
    """Figures of every GPU, and why its clocks are lowered."""
    answer = gpu_query(("index", "uuid", *FIELDS, "clocks_event_reasons.active"))
    values: dict[str, Rows] = {name: [] for name, _, _ in FIELDS.values()}
    throttled: Rows = []
    for row in _csv(answer["text"]):
        gpu = {"gpu": row.get("index", ""), "uuid": row.get("uuid", "")}
        for field, (name, unit, _) in FIELDS.items():
            number = _number(row.get(field, ""))
            if number is not None:
                values[name].append((gpu, number * unit))
        mask = row.get("clocks_event_reasons.active") or row.get("clocks_throttle_reasons.active") or ""
        if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", mask):
            throttled += [
                ({**gpu, "reason": reason}, float(bool(int(mask, 16) & bit))) for reason, bit in REASONS.items()
            ]
    blocks = [_block(name, text, values[name]) for name, _, text in FIELDS.values()]
    return [*blocks, _block("muster_gpu_throttled", "1 while the clocks are lowered for this reason.", throttled)]


def rows_remapped() -> list[str]:
    """Row remaps that wait for a reset, and those that failed."""
    answer = nvidia_csv("--query-remapped-rows=gpu_uuid,remapped_rows.pending,remapped_rows.failure")
    rows = [
        ({"uuid": row.get("gpu_uuid", ""), "state": state}, float(row[f"remapped_rows.{state}"] in ("1", "Yes")))
        for row in _csv(answer["text"])
        for state in ("pending", "failure")
        if f"remapped_rows.{state}" in row
    ]
    return [_block("muster_gpu_row_remap", "1 while a row remap is pending or has failed.", rows)]


def nvlinks() -> list[str]:
    """NVLinks that are up and down, by GPU, and the errors that they counted."""
    links: dict[tuple[str, str], int] = {}
    gpu = ""
    for line in tool(["nvidia-smi", "nvlink", "-s"])["text"].splitlines():
        head = re.match(r"GPU (\d{1,3}):", line)
        gpu = head.group(1) if head else gpu
        if re.search(r"\bLink \d+:", line):
            key = (gpu, "inactive" if "inactive" in line else "active")
            links[key] = links.get(key, 0) + 1
    errors: dict[tuple[str, str], int] = {}
    for line in tool(["nvidia-smi", "nvlink", "-e"])["text"].splitlines():
        head = re.match(r"GPU (\d{1,3}):", line)
        gpu = head.group(1) if head else gpu
        count = re.search(r"\bLink \d+: (Replay|Recovery|CRC) Errors: (\d{1,18})", line)
        if count:
            key = (gpu, count.group(1).lower())
            errors[key] = errors.get(key, 0) + int(count.group(2))
    up: Rows = [({"gpu": gpu, "state": state}, float(count)) for (gpu, state), count in sorted(links.items())]
    bad: Rows = [({"gpu": gpu, "kind": kind}, float(count)) for (gpu, kind), count in sorted(errors.items())]
    return [
        _block("muster_gpu_nvlinks", "NVLinks by state.", up),
        _block("muster_gpu_nvlink_errors", "Errors of a GPU's NVLinks since the driver was loaded.", bad),
    ]


def driver() -> list[str]:
    """The driver that is loaded, and whether another one is installed."""
    answer = tool(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    said = answer["text"] + answer["stderr"]
    loaded = next(iter(re.findall(r"^(\d[\d.]{0,30})$", answer["text"], re.M)), "")
    status, installed = run_command.run(["modinfo", "-F", "version", "nvidia"])
    known = installed.strip() if status == 0 and re.fullmatch(r"\d[\d.]{0,30}", installed.strip()) else ""
    drift = MISMATCH in said.lower() or bool(loaded and known and loaded != known)
    return [
        _block("muster_driver_info", "The GPU driver that is loaded.", [({"version": loaded}, 1.0)] if loaded else []),
        _block(
            "muster_driver_drift",
            "1 where the GPU driver on the disk is not the one that is loaded.",
            [({}, float(drift))] if loaded or drift else [],
        ),
    ]


def weights(revisions: Iterable[Json]) -> list[str]:
    """Whether every file of a revision is as it was when it was verified; no file is read."""
    rows: Rows = []
    for each in revisions:
        state = answered(partial(weights_on_disk.pinned_state, each["directory"], each["manifest"]))
        labels = {"used_by": each["group"], "revision": str(each["directory"]).rpartition("/")[2]}
        rows.append((labels, float(bool(state.get("value", {}).get("complete")))))
    return [_block("muster_weights_verified", "1 while weights are as they were verified.", rows)]


def _blocks(source: Any) -> list[str]:
    answer = answered(source)
    return list(answer.get("value", ()))


def _csv(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV with a header such as `index, memory.used [MiB]`, by name without the unit."""
    lines = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()[:65] if line.strip()]
    if not lines:
        return []
    names = [name.split(" ")[0] for name in lines[0]]
    return [dict(zip(names, cells)) for cells in lines[1:] if len(cells) == len(names)]


def _number(text: str) -> float | None:
    match = re.match(r"(\d{1,12}(?:\.\d{1,6})?)(?: |$)", text)
    return float(match.group(1)) if match else None


def _block(name: str, text: str, rows: Rows) -> str:
    if not rows:
        return ""
    lines = [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
    for labels, value in rows:
        pairs = ",".join(f'{key}="{_label(label)}"' for key, label in labels.items())
        lines.append(f"{name}{{{pairs}}} {value:.12g}")
    return "\n".join(lines) + "\n"


def _label(value: str) -> str:
    return re.sub(r"[^\w .:/+-]", "_", value[:80], flags=re.ASCII)
