"""GPUs, fabric and network as the host's tools print them; nothing is changed.

The control side parses the text. Each source runs in its own thread: a missing tool, a hung driver or gigantic output
costs that source and no other. `probe_machine` needs no tools.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from typing import Any, Callable

from muster.on_host import places
from muster.on_host.probe_sources import LIMIT, answered, tool

Json = dict[str, Any]

GPU_FIELDS = (
    "index",
    "name",
    "uuid",
    "pci.bus_id",
    "memory.total",
    "driver_version",
    "compute_cap",
    "mig.mode.current",
    "ecc.mode.current",
    "ecc.errors.uncorrected.volatile.total",
    "retired_pages.pending",
    "persistence_mode",
    "fabric.state",
    "fabric.status",
    "clocks_event_reasons.active",
)
# Older names of fields, tried once when a driver refuses the newer one.
OLDER_NAME = {"clocks_event_reasons.active": "clocks_throttle_reasons.active"}
# Errors of GPUs and NVSwitches, and the driver being loaded, which answers all errors before.
DRIVER_LINE = re.compile(rb"\bS?Xid\b|NVRM: loading NVIDIA")


def gpu_query(wanted: Sequence[str] = GPU_FIELDS) -> Json:
    """`nvidia-smi --query-gpu` without the fields that this driver refuses."""
    fields, refused = list(wanted), []
    for _ in range(2 * len(fields)):
        answer = tool(["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv"])
        refusal = re.search(r'Field "([^"]{1,80})" is not a valid field', answer["text"] + answer["stderr"])
        if not refusal or refusal.group(1) not in fields:
            break
        place = fields.index(refusal.group(1))
        refused.append(fields[place])
        older = OLDER_NAME.get(fields[place])
        fields[place : place + 1] = [older] if older else []
    answer["refused"] = refused
    return answer


def driver_log() -> Json:
    """The driver's lines in the kernel log since boot, the last 200 at most, and when the host was last repaired.

    A journal without any kernel line does not receive them; then dmesg is read.
    """
    answer: Json = {"rc": None, "text": "", "stderr": ""}
    for argv in (["journalctl", "-k", "-b", "--no-pager", "-q", "-o", "short-monotonic"], ["dmesg"]):
        try:
            one = tool(argv, seconds=30.0, limit=16 * LIMIT, keep=DRIVER_LINE)
        except OSError as error:
            one = {"rc": None, "text": "", "stderr": str(error), "lines": 0}
        if one["rc"] == 0 or answer["rc"] is None:
            answer = one
        if one["rc"] == 0 and one["lines"]:
            break
    answer["text"] = "\n".join(answer["text"].splitlines()[-200:])
    try:
        # On the kernel's clock, as the lines are.
        answer["repaired"] = time.monotonic() - (time.time() - os.stat(places.REPAIRED).st_mtime)
    except OSError:
        answer["repaired"] = None
    return answer


def fabric_manager() -> Json:
    """The state of NVIDIA's Fabric Manager and its version."""
    unit = ["systemctl", "show", "nvidia-fabricmanager.service", "-p", "LoadState,ActiveState,SubState"]
    answer: Json = {"unit": tool(unit)}
    try:
        answer["version"] = tool(["nv-fabricmanager", "--version"])
    except OSError as error:
        answer["version"] = {"error": str(error)}
    return answer


def systemd() -> Json:
    """The version of systemd, and whether it booted this host."""
    return {"version": tool(["systemctl", "--version"]), "booted": os.path.isdir("/run/systemd/system")}


def names() -> Json:
    """What the host's own name resolves to."""
    own = os.uname().nodename
    return {"hostname": own, "own": tool(["getent", "ahosts", own], seconds=8.0)}


def nvidia_csv(query: str) -> Json:
    """Ask `nvidia-smi` one of its queries."""
    return tool(["nvidia-smi", query, "--format=csv"])


def compute_apps() -> Json:
    """The processes on the GPUs, and the control group (the unit) of each."""
    answer = nvidia_csv("--query-compute-apps=pid,process_name,gpu_uuid,used_memory")
    groups = {}
    for pid in re.findall(r"^(\d{1,10}),", answer["text"], re.M)[:256]:
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
                groups[pid] = file.read(1024)
        except OSError:
            continue
    answer["cgroups"] = groups
    return answer


SOURCES: dict[str, Callable[[], Json]] = {
    "gpus": gpu_query,
    "apps": compute_apps,
    "remapped": lambda: nvidia_csv("--query-remapped-rows=gpu_uuid,remapped_rows.pending,remapped_rows.failure"),
    "nvlink": lambda: tool(["nvidia-smi", "nvlink", "-s"]),
    "topology": lambda: tool(["nvidia-smi", "topo", "-m"]),
    "driver_log": driver_log,
    "fabric_manager": fabric_manager,
    "links": lambda: tool(["ip", "-j", "addr", "show"]),
    "systemd": systemd,
    "names": names,
    # With the reading that `probe_machine` takes last, this bounds the clock's offset from both sides.
    "started": lambda: {"wall": time.time()},
}


def main(request: Json) -> Json:
    """Gather the requested sources, all at once.

    Args:
        request: `sources` (names; all when not given), `without` (names left out) and `seconds` (for all of
            them, default 60).
    """
    requested = [name for name in request.get("sources", SOURCES) if name not in request.get("without", ())]
    answers: Json = {name: {"error": "no answer in time"} for name in requested}

    def gather(name: str) -> None:
        answers[name] = answered(SOURCES[name])

    # Daemon threads: one stuck in the kernel must not keep the program from ending.
    threads = [threading.Thread(target=gather, args=(name,), daemon=True) for name in requested]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + float(request.get("seconds", 60.0))
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(answers)
