"""How long the plan of a fleet takes: 1,000 hosts of 8 GPUs in 60 groups, from inventory file to table.

    python benchmarks/fleet_plan.py

What `muster plan INVENTORY` does, in a process of its own, without the interpreter's start. Target: 2 s. `cpu_s` is
what it took of a CPU: seconds count only on a machine that has nothing else to do.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOSTS, GROUPS, RUNS = 1000, 60, 5
RESULTS = Path(__file__).parent / "results"


def inventory_text() -> str:
    """Return an inventory of 60 groups of 16 or 17 hosts."""
    lines = ['_data = {"gpu": "H200", "gpus": 8, "fabric_interface": "eth1", "recipe": "kimi-k2-instruct"}']
    sizes = [HOSTS // GROUPS + (number < HOSTS % GROUPS) for number in range(GROUPS)]
    first = 0
    for number, size in enumerate(sizes):
        hosts = [
            (f"h-{n}", {"ssh_hostname": f"10.{n // 62500}.{n // 250 % 250}.{n % 250 + 1}"})
            for n in range(first, first + size)
        ]
        lines.append(f"g{number} = ({hosts!r}, dict(_data, group='g{number}'))")
        first += size
    return "\n".join(lines)


def measure(path: str) -> dict[str, float]:
    """Plan the fleet once and return seconds by part and the process's peak memory in MB."""
    from muster.commands import fleet_text
    from muster.plan.fleet import plan_fleet
    from muster.spec import inventory, inventory_source

    cpu, begin = time.process_time(), time.perf_counter()
    groups = inventory.groups_of(inventory_source.load(path), name=path)
    read = time.perf_counter()
    fleet = plan_fleet(groups)
    text = fleet_text.as_text(fleet, path)
    end, spent = time.perf_counter(), time.process_time() - cpu
    assert len(fleet.plans) == GROUPS
    assert text.startswith(f"{GROUPS} groups on {HOSTS} hosts")
    assert len({name for plan in fleet.plans.values() for name in plan.hosts}) == HOSTS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"read_s": read - begin, "plan_s": end - read, "seconds": end - begin, "cpu_s": spent, "peak_mb": peak}


def main() -> None:
    """Measure some runs, print them, and keep the median."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "fleet.py"
        path.write_text(inventory_text())
        command = [sys.executable, __file__, str(path)]
        runs = [
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(RUNS)
        ]
    runs.sort(key=lambda run: run["seconds"])
    for run in runs:
        print("  ".join(f"{name} {value:.2f}" for name, value in run.items()))
    kept = {name: round(value, 2) for name, value in runs[len(runs) // 2].items()}
    result = {"date": time.strftime("%Y-%m-%d"), "hosts": HOSTS, "groups": GROUPS, "runs": RUNS, "median": kept}
    (RESULTS / f"{result['date']}-fleet-plan.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"median {kept['seconds']} s for {HOSTS} hosts in {GROUPS} groups; target 2 s")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
