"""What watching a group costs its head's guard on real hosts: scrapes and a page that is read every second.

    python benchmarks/guard_watched.py [--hosts 16] [--seconds 60] [--name guard-watched]

Needs root: boots the sandbox hosts and deploys a group with guards and the stand-in engine, one DP rank on each host.
Asks the head's control port for `/metrics`, `/status` and `/` fifty times each: bytes, and time of one answer. Then
reads the guard's processor time from /proc in turns: left alone, and with the page read once a second.
`guard_readers.py` measures the same answers without hosts, for groups of any size.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from guard_soak import Guard, deploy, get  # noqa: E402

from muster.sandbox import Sandbox  # noqa: E402
from muster.sandbox.shell import wait_for  # noqa: E402

PATHS, TIMES = ("/metrics", "/status", "/"), 50
TURNS = ("alone", "read", "read", "alone")
"""What else the machine does falls on both alike."""


def answers(address: str, path: str) -> dict[str, float]:
    """Ask for one path again and again, each time over a connection of its own."""
    took, size = list[float](), 0
    for _ in range(TIMES):
        begun = time.monotonic()
        status, text = get(address, path)
        took.append(1000 * (time.monotonic() - begun))
        if status != 200:
            raise SystemExit(f"{path} answers {status}")
        size = len(text.encode())
    return {"bytes": size, "median_ms": round(statistics.median(took), 1), "most_ms": round(max(took), 1)}


def turns(guard: Guard, address: str, seconds: float) -> dict[str, float]:
    """Return percent of one core that the guard takes, left alone and with its page read once a second."""
    taken: dict[str, list[float]] = {"alone": [], "read": []}
    for turn in TURNS:
        begun, spent = time.monotonic(), guard.seconds()
        while time.monotonic() - begun < seconds:
            if turn == "read":
                get(address, "/")
            time.sleep(1)
        taken[turn].append(100 * (guard.seconds() - spent) / (time.monotonic() - begun))
    return {turn: round(statistics.mean(percents), 2) for turn, percents in taken.items()}


def main() -> None:
    """Boot, deploy, ask; print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of four turns")
    parser.add_argument("--name", default="guard-watched")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        box = Sandbox.up(given.name, given.hosts)
        with tempfile.TemporaryDirectory() as directory:
            deploy(box, "standin", Path(directory))
        head = box.hosts[0]
        address = f"{head.address}:29600"
        wait_for("ready", lambda: get(address, "/ready")[0] == 200, timeout=120, every=1)
        init = next(row.pid or 0 for row in box.status() if row.host.name == head.name)
        guard = Guard(box, head.name, init)
        result: dict[str, Any] = {
            "date": date.today().isoformat(),
            "cores": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 1),
            "hosts": given.hosts,
            "answers": {path: answers(address, path) for path in PATHS},
            "percent_of_a_core": turns(guard, address, given.seconds),
            "resident_mib": round(guard.memory()[0], 1),
        }
    finally:
        Sandbox.named(given.name).down()
    place = ROOT / "benchmarks" / "results" / f"{result['date']}-guard-watched.json"
    place.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
