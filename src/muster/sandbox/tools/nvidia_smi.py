"""`nvidia-smi` of a sandbox host: the queries that operators and preflight use, printed as recorded."""

from __future__ import annotations

import re
import sys
import time

from . import gpusim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .gpusim import Gpu, State

    # Where a value comes from (a path in the XML, or a function), and the unit in the header.
    Source = str | Callable[[Gpu, State], str]
    Field = tuple[Source, str | None]


VOLATILE = "ecc_errors/volatile/"
AGGREGATE = "ecc_errors/aggregate/"
UNCORRECTABLE = ("sram_uncorrectable_parity", "sram_uncorrectable_secded", "dram_uncorrectable")
MIB, WATT, MHZ, PERCENT = "MiB", "W", "MHz", "%"


def _sum(*paths: str) -> Source:
    return lambda gpu, state: str(sum(int(gpu.get(path)) for path in paths))


def _reason(name: str) -> Source:
    path = "clocks_event_reasons/clocks_event_reason_" + name
    return lambda gpu, state: gpu.get(path)


# What --query-gpu knows.
FIELDS: dict[str, Field] = {
    "index": (lambda gpu, state: str(gpu.index), None),
    "count": (lambda gpu, state: str(len(state["gpus"])), None),
    "timestamp": (lambda gpu, state: time.strftime("%Y/%m/%d %H:%M:%S.000"), None),
    "driver_version": (lambda gpu, state: state["driver_version"], None),
    "compute_cap": (lambda gpu, state: gpu.about["compute_cap"], None),
    "name": ("product_name", None),
    "uuid": ("uuid", None),
    "serial": ("serial", None),
    "vbios_version": ("vbios_version", None),
    "pci.bus_id": ("pci/pci_bus_id", None),
    "pcie.link.gen.current": ("pci/pci_gpu_link_info/pcie_gen/current_link_gen", None),
    "pcie.link.gen.max": ("pci/pci_gpu_link_info/pcie_gen/max_link_gen", None),
    "pcie.link.width.current": ("pci/pci_gpu_link_info/link_widths/current_link_width", "x"),
    "pcie.link.width.max": ("pci/pci_gpu_link_info/link_widths/max_link_width", "x"),
    "memory.total": ("fb_memory_usage/total", MIB),
    "memory.reserved": ("fb_memory_usage/reserved", MIB),
    "memory.used": ("fb_memory_usage/used", MIB),
    "memory.free": ("fb_memory_usage/free", MIB),
    "persistence_mode": ("persistence_mode", None),
    "compute_mode": ("compute_mode", None),
    "addressing_mode": ("addressing_mode", None),
    "pstate": ("performance_state", None),
    "mig.mode.current": ("mig_mode/current_mig", None),
    "mig.mode.pending": ("mig_mode/pending_mig", None),
    "ecc.mode.current": ("ecc_mode/current_ecc", None),
    "ecc.mode.pending": ("ecc_mode/pending_ecc", None),
    "ecc.errors.corrected.volatile.total": (
        _sum(VOLATILE + "sram_correctable", VOLATILE + "dram_correctable"),
        None,
    ),
    "ecc.errors.uncorrected.volatile.dram": (VOLATILE + "dram_uncorrectable", None),
    "ecc.errors.uncorrected.volatile.sram": (_sum(*(VOLATILE + name for name in UNCORRECTABLE[:2])), None),
    "ecc.errors.uncorrected.volatile.total": (_sum(*(VOLATILE + name for name in UNCORRECTABLE)), None),
    "ecc.errors.uncorrected.aggregate.total": (_sum(*(AGGREGATE + name for name in UNCORRECTABLE)), None),
    "retired_pages.pending": ("retired_pages/pending_retirement", None),
    "fabric.state": ("fabric/state", None),
    "fabric.status": ("fabric/status", None),
    "temperature.gpu": ("temperature/gpu_temp", "C"),
    "temperature.memory": ("temperature/memory_temp", "C"),
    "power.draw": ("gpu_power_readings/average_power_draw", WATT),
    "power.limit": ("gpu_power_readings/current_power_limit", WATT),
    "utilization.gpu": ("utilization/gpu_util", PERCENT),
    "utilization.memory": ("utilization/memory_util", PERCENT),
    "clocks.sm": ("clocks/sm_clock", MHZ),
    "clocks.mem": ("clocks/mem_clock", MHZ),
    "clocks_event_reasons.active": (lambda gpu, state: gpu.about["event_reasons"], None),
}
FIELDS.update({"clocks_event_reasons." + name: (_reason(name), None) for name in gpusim.REASONS})
ALIASES = {
    "gpu_name": "name",
    "gpu_uuid": "uuid",
    "gpu_serial": "serial",
    "gpu_bus_id": "pci.bus_id",
    "clocks.current.sm": "clocks.sm",
    "clocks.current.memory": "clocks.mem",
}
ALIASES.update({name.replace("event", "throttle"): name for name in FIELDS if name.startswith("clocks_event")})
REMAPPED: dict[str, Field] = {
    "remapped_rows.correctable": ("remapped_rows/remapped_row_corr", None),
    "remapped_rows.uncorrectable": ("remapped_rows/remapped_row_unc", None),
    "remapped_rows.pending": ("remapped_rows/remapped_row_pending", None),
    "remapped_rows.failure": ("remapped_rows/remapped_row_failure", None),
}
# Neither header nor value prints these units.
BARE = ("C", "x")


def _value(gpu: Gpu, state: State, field: Field, nounits: bool) -> str:
    where, unit = field
    text = where(gpu, state) if callable(where) else gpu.get(where)
    if text in ("N/A", ""):
        return "[N/A]"
    if unit in BARE or (unit and nounits):
        return text[: -len(unit)].rstrip() if text.endswith(unit) else text
    return text


def _header(name: str, field: Field) -> str:
    unit = field[1]
    return f"{name} [{unit}]" if unit and unit not in BARE else name


def _csv(rows: list[list[str]], header: list[str], options: list[str]) -> None:
    if "noheader" not in options:
        print(", ".join(header))
    for row in rows:
        print(", ".join(row))


def query_gpus(state: State, chosen: list[Gpu], names: list[str], options: list[str], known: dict[str, Field]) -> None:
    """Print `--query-gpu` or `--query-remapped-rows`; an unknown field ends with status 2 as the real one does."""
    fields = []
    for name in names:
        field = known.get(ALIASES.get(name, name))
        if field is None:
            print(f'Field "{name}" is not a valid field to query.\n')
            sys.exit(2)
        fields.append((name, field))
    rows = [[_value(gpu, state, field, "nounits" in options) for _, field in fields] for gpu in chosen]
    _csv(rows, [_header(name, field) for name, field in fields], options)


def query_apps(state: State, chosen: list[Gpu], names: list[str], options: list[str]) -> None:
    """Print `--query-compute-apps`."""
    by_index = {gpu.index: gpu for gpu in chosen}
    known: dict[str, Callable[[dict[str, Any], Gpu], str]] = {
        "pid": lambda p, g: str(p["pid"]),
        "name": lambda p, g: p["name"],
        "process_name": lambda p, g: p["name"],
        "gpu_uuid": lambda p, g: g.get("uuid"),
        "gpu_name": lambda p, g: g.get("product_name"),
        "gpu_bus_id": lambda p, g: g.get("pci/pci_bus_id"),
        "gpu_serial": lambda p, g: g.get("serial"),
        "used_memory": lambda p, g: f"{p['used_mib']} MiB",
        "used_gpu_memory": lambda p, g: f"{p['used_mib']} MiB",
    }
    header = []
    for name in names:
        if name not in known:
            print(f'Field "{name}" is not a valid field to query.\n')
            sys.exit(2)
        header.append("used_gpu_memory [MiB]" if name.startswith("used_") else name)
    rows = []
    for process in state.get("processes", []):
        gpu = by_index.get(process["gpu"])
        if gpu:
            row = [known[name](process, gpu) for name in names]
            rows.append([v[:-4] if "nounits" in options and v.endswith(" MiB") else v for v in row])
    _csv(rows, header, options)


def query_xml(state: State, chosen: list[Gpu]) -> None:
    """Print `-q -x`."""
    head, _, tail = gpusim.blocks()
    head = re.sub(r"(?<=<driver_version>)[^<]*", state["driver_version"], head)
    head = re.sub(r"(?<=<cuda_version>)[^<]*", state["cuda_version"], head)
    head = re.sub(r"(?<=<attached_gpus>)[^<]*", str(len(state["gpus"])), head)
    sys.stdout.write(head + "".join(gpu.text(state) + "\n\n" for gpu in chosen) + tail.lstrip("\n"))


def _name(gpu: Gpu) -> str:
    return f"GPU {gpu.index}: {gpu.get('product_name')} (UUID: {gpu.get('uuid')})"


def nvlink(chosen: list[Gpu]) -> None:
    """Print `nvlink -s`."""
    for gpu in chosen:
        print(_name(gpu))
        down = gpu.about.get("links_down", [])
        for link in range(gpu.about["links"]):
            print(f"\t Link {link}: {'<inactive>' if link in down else '26.562 GB/s'}")


def topology(chosen: list[Gpu]) -> None:
    """Print `topo -m`: all pairs through NVSwitch, by as many links as both ends have up."""
    up = {gpu.index: gpu.about["links"] - len(gpu.about.get("links_down", [])) for gpu in chosen}
    print("\t" + "".join(f"GPU{index}\t" for index in up) + "CPU Affinity\tNUMA Affinity\tGPU NUMA ID")
    for one in up:
        cells = []
        for other in up:
            links = min(up[one], up[other])
            cells.append(" X " if one == other else (f"NV{links}" if links else "SYS"))
        print(f"GPU{one}\t" + "\t".join(cells) + "\t0-31\t0\t\tN/A")
    print("\n" + gpusim.recorded("h200x2-topo-m.txt").split("\n\n", 1)[1].rstrip("\n"))


def table(state: State, chosen: list[Gpu]) -> None:
    """Print what `nvidia-smi` alone prints, shortened to a line per GPU."""
    version = state["driver_version"]
    print(f"NVIDIA-SMI {version}   Driver Version: {version}   CUDA Version: {state['cuda_version']}")
    print("(simulated by the muster sandbox)")
    for gpu in chosen:
        used, total = gpu.get("fb_memory_usage/used"), gpu.get("fb_memory_usage/total")
        bus = gpu.get("pci/pci_bus_id")
        print(f"{gpu.index:3d}  {gpu.get('product_name'):<24} {bus}  {used} / {total}")


def _select(gpus: list[Gpu], selector: str | None) -> list[Gpu]:
    if selector is None:
        return gpus
    chosen = [g for g in gpus if selector in (str(g.index), g.get("uuid"), g.get("pci/pci_bus_id"))]
    if not chosen:
        print("No devices were found")
        sys.exit(6)
    return chosen


def main(argv: list[str]) -> int:
    state = gpusim.load()
    gpusim.misbehave(state, "nvidia-smi")
    gpus = gpusim.gpus(state)
    options: list[str] = []
    flags: list[str] = []
    queries: dict[str, list[str]] = {}
    selector: str | None = None
    words = iter(argv)
    for word in words:
        key, sep, value = word.partition("=")
        if key in ("-i", "--id"):
            selector = value if sep else next(words, None)
        elif key == "--format":
            options = value.split(",")
        elif key.startswith("--query-"):
            queries[key[8:]] = [name.strip() for name in value.split(",")]
        else:
            flags.append(word)
    if not gpus:
        print("No devices were found")
        return 6
    chosen = _select(gpus, selector)
    if queries and "csv" not in options:
        print('"--format=" is required with a query: csv')
        return 2
    if "gpu" in queries:
        query_gpus(state, chosen, queries["gpu"], options, FIELDS)
    elif "remapped-rows" in queries:
        known = {**REMAPPED, **{n: FIELDS[n] for n in ("name", "uuid", "serial", "pci.bus_id")}}
        query_gpus(state, chosen, queries["remapped-rows"], options, known)
    elif "compute-apps" in queries:
        query_apps(state, chosen, queries["compute-apps"], options)
    elif "-q" in flags and "-x" in flags:
        query_xml(state, chosen)
    elif flags[:1] == ["nvlink"]:
        nvlink(chosen)
    elif flags[:1] == ["topo"]:
        topology(chosen)
    elif flags in (["-L"], ["--list-gpus"]):
        for gpu in chosen:
            print(_name(gpu))
    elif not flags:
        table(state, chosen)
    else:
        print("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
