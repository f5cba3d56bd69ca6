"""What a host must be before a rank may start, judged from facts. Pure.

One judge for two readers: the preflight judges a host from afar, the guard judges it at each start, both from the same
facts: the GPUs as nvidia-smi lists them, and the driver's lines in the kernel log, in the driver's own words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"

REPAIRED = "/etc/muster/repaired"
"""Root's dated marker: kernel lines older than its modification time were answered by a repair."""

DEVICE_FIELDS = ("index", "uuid", "pci.bus_id", "fabric.state", "fabric.status")
"""What the judge reads of each GPU, as `nvidia-smi --query-gpu` calls it."""

START_FABRIC = "systemctl enable --now nvidia-fabricmanager; then check nvidia-smi -q -d FABRIC"


SUBJECTS = {"gpu.count": "number of GPUs", "fabric_manager.state": "NVLink fabric"}


@dataclass(frozen=True)
class Finding:
    """One judgement.

    `check` is its name in the preflight's catalogue, `level` OK, WARN or FAIL. A FAIL keeps the guard from starting.
    """

    check: str
    level: str
    found: str
    needed: str = ""
    fix: str = ""

    def sentence(self) -> str:
        """The finding in one line, as the guard reports it."""
        return f"{SUBJECTS.get(self.check, self.check)}: {self.found}; needed: {self.needed}; {self.fix}"


@dataclass(frozen=True)
class Device:
    """One GPU of the host; None where nvidia-smi has no value."""

    index: int | None
    uuid: str | None
    bus_id: str | None = None
    fabric_state: str | None = None
    fabric_status: str | None = None


def device(row: Mapping[str, str]) -> Device:
    """Return the GPU of one row, by names of DEVICE_FIELDS; what is missing or N/A is None."""

    def value(name: str) -> str | None:
        text = row.get(name, "").strip()
        return None if not text or text.strip("[]") in ("N/A", "Not Supported", "Unknown Error", "Not Found") else text

    index = value("index")
    return Device(
        int(index) if index is not None and index.isdigit() else None,
        value("uuid"),
        value("pci.bus_id"),
        value("fabric.state"),
        value("fabric.status"),
    )


def choose(devices: Sequence[Device], count: int, wanted: Sequence[str] = ()) -> tuple[tuple[Device, ...], Finding]:
    """Return the GPUs that the group uses, and whether they are all there.

    Args:
        devices: all GPUs of the host.
        count: how many the group uses.
        wanted: their indices or UUIDs; empty takes the first ones by index.
    """
    check, total = "gpu.count", len(devices)
    if wanted:
        by_name = {str(name): each for each in devices for name in (each.index, each.uuid) if name is not None}
        chosen = tuple(dict.fromkeys(by_name[name] for name in wanted if name in by_name))
        missing = [name for name in wanted if name not in by_name]
    else:
        chosen = tuple(sorted(devices, key=lambda each: total if each.index is None else each.index)[:count])
        there = {each.index for each in devices}
        missing = [str(index) for index in range(count) if index not in there] if total < count else []
    if wanted and not missing and len(chosen) != count:
        found = f"{total}; gpu_devices names {len(chosen)} of them: {', '.join(wanted)}"
        return chosen, Finding(check, FAIL, found, str(count), "name as many different GPUs in gpu_devices as in gpus")
    if missing or len(chosen) < count:
        found = f"{total}; missing: GPU {', '.join(missing)}"
        fix = "see dmesg for Xid 79 and lspci | grep -i nvidia; power-cycle the host, then have the GPU replaced"
        return chosen, Finding(check, FAIL, found, str(count), fix)
    if len(chosen) < total:
        used = ", ".join(str(each.index) for each in chosen)
        return chosen, Finding(check, OK, f"{total}, of which the group uses {used}", str(count))
    return chosen, Finding(check, OK, str(total), str(count))


def visible(devices: Sequence[Device], chosen: Sequence[Device]) -> dict[str, str]:
    """Return the environment that shows a rank the chosen GPUs alone; empty where it uses all of them."""
    uuids = [each.uuid for each in chosen if each.uuid is not None]
    if len(chosen) == len(devices) or len(uuids) < len(chosen):
        return {}
    # By UUID: an index means another GPU to CUDA than to nvidia-smi unless CUDA_DEVICE_ORDER says so.
    return {"CUDA_VISIBLE_DEVICES": ",".join(uuids)}


def fabric(devices: Iterable[Device]) -> Finding | None:
    """Judge the fabric state of the GPUs; None where they have no NVSwitch fabric."""
    devices = tuple(devices)
    if all(each.fabric_state is None and each.fabric_status is None for each in devices):
        return None
    done = "Completed, Success"
    for each in devices:
        if (each.fabric_state, each.fabric_status) != ("Completed", "Success"):
            found = f"GPU {each.index}: {each.fabric_state or 'N/A'}, {each.fabric_status or 'N/A'}"
            if each.fabric_state == "In Progress":
                fix = f"wait for Fabric Manager; if it stays so, {START_FABRIC}"
            else:
                fix = START_FABRIC
            return Finding("fabric_manager.state", FAIL, found, done, fix)
    return Finding("fabric_manager.state", OK, done)


def driver_fix(text: str) -> str:
    """Return what to do about an nvidia-smi that fails, by what it prints."""
    if "version mismatch" in text.lower():
        return "the driver was updated and the old one is still loaded: reboot the host"
    return "see whether the driver is loaded (lsmod | grep nvidia; journalctl -k | grep -i nvrm)"
