"""Times the preflight over 1, 4 and 16 sandbox hosts: python benchmarks/preflight_scale.py [--gpus N] [--out FILE]

Prints seconds without pairs (start-up of Python and SSH connections included, as a user waits for them), seconds with
pairs, SSH sessions a host, and the ratio of the largest to the smallest. Root, on a machine that can boot the sandbox.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
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


def once(*words: str) -> float:
    """Run the command as a user does and return the seconds it took.

    Raises:
        SystemExit: the run did not come to an answer.
    """
    start = "from muster.preflight.cli import preflight; preflight()"
    argv = [sys.executable, "-c", start, "inventories/sandbox.py", "--format", "json", *words]
    env = {**os.environ, "MUSTER_SANDBOX": NAME, "PYTHONPATH": str(ROOT / "src")}
    before = time.perf_counter()
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    seconds = time.perf_counter() - before
    if done.returncode not in (0, 3):
        sys.exit(f"preflight failed: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds


def measure(box: Sandbox, hosts: int) -> dict[str, Any]:
    """Return the figures for the hosts that are up."""
    once("--no-pairs")  # warms caches of the control machine and of the hosts
    mark = box.journal_cursor("node0")
    alone = [once("--no-pairs") for _ in range(RUNS)]
    sessions = len(box.ssh_sessions("node0", since=mark)) / RUNS
    pairs = once() if hosts > 1 else None
    return {
        "hosts": hosts,
        "seconds": round(statistics.median(alone), 2),
        "fastest": round(min(alone), 2),
        "slowest": round(max(alone), 2),
        "sessions_a_host": sessions,
        "seconds_with_pairs": None if pairs is None else round(pairs, 2),
    }


def main() -> None:
    """Boot, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--gpus", type=int, default=1, help="of each host; the simulated tools take longer for more")
    wanted = parser.parse_args()
    rows, load = [], round(os.getloadavg()[0], 2)
    try:
        for hosts in SIZES:
            box = Sandbox.up(NAME, hosts, gpu="H200", gpus=wanted.gpus)
            rows.append(measure(box, hosts))
            print(json.dumps(rows[-1]), flush=True)
    finally:
        Sandbox.find(NAME).down()
    ratio = rows[-1]["seconds"] / rows[0]["seconds"]
    print(f"{SIZES[-1]} hosts take {ratio:.2f} times as long as {SIZES[0]} (the bar is 3)")
    result = {
        "date": date.today().isoformat(),
        "cpus": os.cpu_count(),
        "gpus_a_host": wanted.gpus,
        "load_of_others": load,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "pyinfra": version("pyinfra"),
        "rows": rows,
        "ratio": round(ratio, 2),
    }
    if wanted.out:
        wanted.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
