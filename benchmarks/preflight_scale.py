"""Times the preflight over 1, 4 and 16 sandbox hosts: python benchmarks/preflight_scale.py [--gpus N] [--out FILE]

All hosts run the whole time, and the sizes take turns, so that what else the machine does hits each alike. Prints
seconds without pairs (start-up of Python and SSH connections included, as a user waits for them), seconds with pairs,
SSH sessions a host, and the ratio of the largest to the smallest: the median over the rounds. Root, on a machine that
can boot the sandbox.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from muster.sandbox.box import Sandbox  # noqa: E402

SIZES = (1, 4, 16)
RUNS = 5
NAME = "preflight-scale"


def inventory(directory: Path, hosts: int) -> Path:
    """Write an inventory of the sandbox's first hosts; its name makes group_data of the sandbox apply."""
    path = directory / str(hosts) / "sandbox.py"
    path.parent.mkdir()
    path.write_text(f"from muster.sandbox.as_inventory import hosts as _hosts\nhosts = _hosts()[:{hosts}]\n")
    return path


def once(hosts: Path, *words: str) -> float:
    """Run the command as a user does and return the seconds it took.

    Raises:
        SystemExit: the run did not come to an answer.
    """
    start = "from muster.commands.preflight import preflight; preflight()"
    argv = [sys.executable, "-c", start, str(hosts), "--format", "json", *words]
    env = {**os.environ, "MUSTER_SANDBOX": NAME, "PYTHONPATH": str(ROOT / "src")}
    before = time.perf_counter()
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    seconds = time.perf_counter() - before
    if done.returncode not in (0, 3):
        sys.exit(f"preflight failed: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds


def measure(box: Sandbox, directory: Path) -> tuple[list[dict[str, Any]], list[float]]:
    """Return the figures of each size, and the ratio of the largest to the smallest in each round."""
    places = {hosts: inventory(directory, hosts) for hosts in SIZES}
    once(places[SIZES[-1]], "--no-pairs")  # warms caches of the control machine and of the hosts
    mark, taken = box.journal_cursor("node0"), dict[int, list[float]]()
    for number in range(RUNS):
        for hosts, place in places.items():
            taken.setdefault(hosts, []).append(once(place, "--no-pairs"))
        print(
            f"round {number + 1}: { ({hosts: round(seconds[-1], 2) for hosts, seconds in taken.items()}) }", flush=True
        )
    sessions = len(box.ssh_sessions("node0", since=mark)) / (RUNS * len(SIZES))
    rows = [
        {
            "hosts": hosts,
            "seconds": round(statistics.median(seconds), 2),
            "fastest": round(min(seconds), 2),
            "slowest": round(max(seconds), 2),
            "sessions_a_host": sessions,
            "seconds_with_pairs": round(once(places[hosts]), 2) if hosts > 1 else None,
        }
        for hosts, seconds in taken.items()
    ]
    return rows, [last / first for first, last in zip(taken[SIZES[0]], taken[SIZES[-1]], strict=True)]


def main() -> None:
    """Boot, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--gpus", type=int, default=1, help="of each host; the simulated tools take longer for more")
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    try:
        box = Sandbox.up(NAME, SIZES[-1], gpu="H200", gpus=arguments.gpus)
        with tempfile.TemporaryDirectory() as directory:
            rows, ratios = measure(box, Path(directory))
    finally:
        Sandbox.named(NAME).down()
    ratio = statistics.median(ratios)
    for row in rows:
        print(json.dumps(row))
    print(f"{SIZES[-1]} hosts take {ratio:.2f} times as long as {SIZES[0]} (the bar is 3)")
    result = {
        "date": date.today().isoformat(),
        "cpus": os.cpu_count(),
        "gpus_a_host": arguments.gpus,
        "load_of_others": load,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "pyinfra": version("pyinfra"),
        "rows": rows,
        "ratio": round(ratio, 2),
        "ratios": [round(one, 2) for one in ratios],
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
