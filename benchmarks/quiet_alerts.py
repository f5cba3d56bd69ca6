"""Hours of load, and what is done on purpose meanwhile: whether an alert fires that should not.

    python benchmarks/quiet_alerts.py [--minutes 120] [--patience 60] [--interval 5] [--name quiet-alerts]

Needs root: boots three sandbox hosts, deploys a group of two DP ranks with the stand-in engine on two, and Prometheus
and Alertmanager on the third, as a user does. Every rank is kept asked. In turns, every `--every` minutes, somebody
stops the group for three patiences and resumes it, or deploys it with another setting. Whatever was pending or firing
at any time is in the result; the run fails where something fired, the group restarted by itself, or Prometheus looked
at a target less than nine times in ten. Hosts have a disk of their own, in memory: what else fills the machine's is no
news of the group. Alerts are as much quicker than a user's as `--patience` is shorter than 300 s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.monitoring.monitored import Monitored  # noqa: E402

from muster.sandbox import Sandbox  # noqa: E402

PAUSE = 0.5
"""Seconds between two requests of one client: load without pause takes the machine from its other users."""
TOKENS = 16
DISK = "6g"
"""Of all hosts together."""


class Load:
    """One client for each rank."""

    def __init__(self, there: Monitored) -> None:
        self.answered, self.failed, self._there, self._over = 0, 0, there, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(rank,), daemon=True) for rank in (0, 1)]
        for thread in self._threads:
            thread.start()

    def _ask(self, rank: int) -> None:
        while not self._over.wait(PAUSE):
            if self._there.answers(rank=rank, tokens=TOKENS):
                self.answered += 1
            else:
                self.failed += 1

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)


def stop_and_resume(there: Monitored, number: int) -> None:
    there.done("stop")
    time.sleep(3 * there.patience)
    there.done("resume")
    there.wait("ready", there.ready)


def change(there: Monitored, number: int) -> None:
    there.deploy(max_num_seqs=32 + number)
    there.wait("ready", there.ready)


ON_PURPOSE = (stop_and_resume, change)


def watch(there: Monitored, minutes: float, every: float) -> dict[str, Any]:
    """Load the group for so long, with something on purpose in turns; return what came of it."""
    begun, load, done = time.monotonic(), Load(there), list[str]()
    restarts = there.status["restarts"]
    try:
        while (left := begun + minutes * 60 - time.monotonic()) > 0:
            time.sleep(min(left, every * 60))
            # What was begun late would end after the time.
            if begun + minutes * 60 - time.monotonic() > 3 * there.patience + 60:
                action = ON_PURPOSE[len(done) % len(ON_PURPOSE)]
                action(there, len(done))
                done.append(action.__name__)
    finally:
        load.end()
    passed = time.monotonic() - begun
    looks, answered = (by_target(there, f"{how}_over_time(up[{round(passed)}s])") for how in ("count", "sum"))
    return {
        "minutes": round(passed / 60, 1),
        "on_purpose": {name: done.count(name) for name in sorted(set(done))},
        "requests": {"answered": load.answered, "failed": load.failed},
        "restarts": there.status["restarts"] - restarts,
        "fired": sorted(there.fired(passed)),
        "pending": sorted(there.fired(passed, "pending")),
        "looks": {target: {"all": looks[target], "answered": answered[target]} for target in looks},
    }


def by_target(there: Monitored, text: str) -> dict[str, float]:
    return {f"{labels['job']} {labels['host']}": value for labels, value in there.query(text)}


@contextlib.contextmanager
def disk_of_its_own() -> Iterator[None]:
    """Keep sandboxes on a file system in memory: an alert about a disk is then about what the group does to it."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "muster-quiet", place], check=True)
        try:
            os.environ["MUSTER_SANDBOX_DIR"] = place
            yield
        finally:
            os.environ.pop("MUSTER_SANDBOX_DIR", None)
            subprocess.run(["umount", "-l", place], check=True)


def main() -> None:
    """Boot, deploy, load, look; print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--every", type=float, default=10.0, help="minutes between two things done on purpose")
    parser.add_argument("--patience", type=int, default=60, help="monitoring_patience, in seconds")
    parser.add_argument("--interval", type=int, default=5, help="monitoring_interval, in seconds")
    parser.add_argument("--name", default="quiet-alerts")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with disk_of_its_own(), tempfile.TemporaryDirectory() as directory:
        try:
            there = Monitored(Sandbox.up(given.name, 3), Path(directory))
            there.patience, there.interval = given.patience, given.interval
            there.bring_up()
            found = watch(there, given.minutes, given.every)
        finally:
            Sandbox.named(given.name).down()
    about = {"date": date.today().isoformat(), "engine": "stand-in", "cores": os.cpu_count()}
    result = {**about, "patience_s": given.patience, "interval_s": given.interval, **found}
    place = ROOT / "benchmarks" / "results" / f"{result['date']}-quiet-alerts.json"
    place.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    missed = [name for name, look in found["looks"].items() if look["all"] < 54 * found["minutes"] / given.interval]
    if found["fired"] or found["restarts"] or missed or not found["looks"]:
        raise SystemExit(f"an alert fired, the group restarted by itself, or Prometheus did not look: {missed}")


if __name__ == "__main__":
    main()
