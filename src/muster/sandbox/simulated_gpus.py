"""The JSON file behind a sandbox host's simulated GPU tools: a healthy host, and what can be wrong with it. Pure.

    box.set_gpus("node1", gpus.missing(box.gpus("node1"), 3))

Each fault takes a file's content and returns a changed copy. The file holds `driver_version`, `cuda_version`,
`fabric_manager_version`, `gpus` (one entry each; its `set` maps paths of `nvidia-smi -q -x` to values), `processes`,
`xids`, `kernel_log` and `commands` (a command that hangs, or prints something else and ends with a status).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

from muster.errors import Refusal
from muster.spec.hardware import gpu as product

Gpus = dict[str, Any]

DRIVER = "580.159.04"
CUDA = "13.0"
# H800: the export variant's cut-down NVLink; the others: NV18, as recorded on H200.
_LINKS = {"H800": 8}
_IDLE = "0x0000000000000001"

XID_TEXTS = {
    13: "Graphics Exception: ESR 0x505730=0x1f0009 0x505734=0x4 0x505728=0x4c1eb72 0x50572c=0x174",
    31: "pid=4242, name=python3, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS faulted",
    48: "pid='<unknown>', name=<unknown>, DBE (double bit error) ECC Error",
    63: "pid='<unknown>', name=<unknown>, Row Remapper: New row marked for remapping, reset gpu to activate.",
    74: "pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link 3",
    79: "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
    94: "pid=4242, name=python3, Contained: SM (0x1). RST: No, D-RST: No",
    95: "pid=4242, name=python3, Uncontained: SM (0x1). RST: Yes, D-RST: No",
}
"""What the driver's message says after an Xid's number; shape from general knowledge, not recorded."""


def healthy(profile: str, count: int) -> Gpus:
    """Return the file of a host on which nothing is wrong.

    Args:
        profile: GPU product as inventories name it ("H200").
        count: GPUs in the host.
    """
    gpu = product(profile)
    return {
        "driver_version": DRIVER,
        "cuda_version": CUDA,
        "fabric_manager_version": DRIVER,
        "gpus": [
            {
                "index": index,
                "name": gpu.product,
                "uuid": f"GPU-00000000-0000-0000-0000-{index:012d}",
                "bus_id": f"00000000:00:{6 + index:02X}.0",
                "memory_mib": gpu.memory_mib,
                "compute_cap": gpu.compute_capability,
                "links": _LINKS.get(profile, 18),
                "links_down": [],
                "event_reasons": _IDLE,
                "set": {},
            }
            for index in range(count)
        ],
        "processes": [],
        "xids": [],
        "kernel_log": [],
        "commands": {},
    }


def _changed(gpus: Mapping[str, Any]) -> Gpus:
    return copy.deepcopy(dict(gpus))


def _gpu(gpus: Gpus, index: int) -> dict[str, Any]:
    for entry in gpus["gpus"]:
        if entry["index"] == index:
            same: dict[str, Any] = entry
            return same
    raise Refusal(f"the host has no GPU {index}", needed=f"one of {[e['index'] for e in gpus['gpus']]}")


def missing(gpus: Mapping[str, Any], index: int) -> Gpus:
    """A GPU is gone from the bus."""
    out = _changed(gpus)
    out["gpus"].remove(_gpu(out, index))
    return out


def driver(gpus: Mapping[str, Any], version: str, *, cuda: str | None = None) -> Gpus:
    """Another driver, with its Fabric Manager."""
    out = _changed(gpus)
    out.update(driver_version=version, fabric_manager_version=version, cuda_version=cuda or out["cuda_version"])
    return out


def fabric_manager(gpus: Mapping[str, Any], version: str) -> Gpus:
    """A Fabric Manager of another version than the driver."""
    return {**_changed(gpus), "fabric_manager_version": version}


def with_value(gpus: Mapping[str, Any], index: int, path: str, value: str) -> Gpus:
    """One value of `nvidia-smi -q -x` differs, and with it every query that prints it.

    Args:
        path: below the `gpu` element, such as "fabric/state".
    """
    out = _changed(gpus)
    _gpu(out, index)["set"][path] = value
    return out


def mig(gpus: Mapping[str, Any], index: int) -> Gpus:
    """MIG is on."""
    return with_value(
        with_value(gpus, index, "mig_mode/current_mig", "Enabled"), index, "mig_mode/pending_mig", "Enabled"
    )


def ecc_off(gpus: Mapping[str, Any], index: int) -> Gpus:
    """ECC is off."""
    return with_value(
        with_value(gpus, index, "ecc_mode/current_ecc", "Disabled"), index, "ecc_mode/pending_ecc", "Disabled"
    )


def ecc_errors(gpus: Mapping[str, Any], index: int, count: int = 1) -> Gpus:
    """Uncorrected memory errors since boot."""
    return with_value(gpus, index, "ecc_errors/volatile/dram_uncorrectable", str(count))


def remap_pending(gpus: Mapping[str, Any], index: int) -> Gpus:
    """A row remap waits for a reset."""
    return with_value(gpus, index, "remapped_rows/remapped_row_pending", "Yes")


def persistence_off(gpus: Mapping[str, Any], index: int) -> Gpus:
    """Persistence mode is off."""
    return with_value(gpus, index, "persistence_mode", "Disabled")


def fabric(gpus: Mapping[str, Any], index: int, state: str, status: str) -> Gpus:
    """The fabric's state, such as "In Progress" and "N/A"."""
    return with_value(with_value(gpus, index, "fabric/state", state), index, "fabric/status", status)


def slowed(gpus: Mapping[str, Any], index: int, reasons: int) -> Gpus:
    """Clock event reasons, as a bit mask of NVML (0x40: hardware thermal slowdown)."""
    out = _changed(gpus)
    _gpu(out, index)["event_reasons"] = f"0x{reasons:016X}"
    return out


def links_down(gpus: Mapping[str, Any], index: int, *links: int) -> Gpus:
    """NVLink links that are inactive."""
    out = _changed(gpus)
    _gpu(out, index)["links_down"] = sorted(links)
    return out


def process(gpus: Mapping[str, Any], index: int, *, pid: int, name: str, used_mib: int) -> Gpus:
    """A compute process that holds memory."""
    out = _changed(gpus)
    _gpu(out, index)
    out["processes"].append({"gpu": index, "pid": pid, "name": name, "used_mib": used_mib})
    return out


def xid(gpus: Mapping[str, Any], index: int, number: int, *, boot_id: str | None = None) -> Gpus:
    """The driver reported an Xid.

    Args:
        boot_id: the boot it belongs to; without it, every boot's log shows it.
    """
    out = _changed(gpus)
    entry: dict[str, Any] = {"gpu": index, "xid": number, "text": XID_TEXTS.get(number, "see the Xid catalogue")}
    entry["bus_id"] = _gpu(out, index)["bus_id"]
    # Hosts share this machine's kernel, hence its clock: a repair must lie after the errors that it answers.
    entry["at"] = time.monotonic()
    if boot_id:
        entry["boot_id"] = boot_id
    out["xids"].append(entry)
    return out


def command(
    gpus: Mapping[str, Any],
    name: str,
    *,
    exit: int | None = None,
    stdout: str = "",
    stderr: str = "",
    hang_s: float = 0,
) -> Gpus:
    """A tool (`nvidia-smi`, `nv-fabricmanager`, `dmesg`, `journalctl`) prints something else, fails or hangs."""
    out = _changed(gpus)
    fault: dict[str, Any] = {"stdout": stdout, "stderr": stderr, "hang_s": hang_s}
    if exit is not None:
        fault["exit"] = exit
    out["commands"][name] = fault
    return out


def no_driver(gpus: Mapping[str, Any]) -> Gpus:
    """The driver does not answer. Wording from general knowledge."""
    text = (
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
        "Make sure that the latest NVIDIA driver is installed and running.\n\n"
    )
    return command(gpus, "nvidia-smi", exit=9, stdout=text)
