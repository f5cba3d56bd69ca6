"""What dies or hangs, how soon it is noticed, gone and answering again: the fault matrix, measured.

    python benchmarks/recovery.py [--rows kill-head,partition] [--engine standin|real] [--name N] [--keep] [--tables]

Needs root: boots two sandbox hosts, deploys the group with guards once and carries the rows out on it, one after the
other, each as a first failure (no backoff of the row before). The engine is the stand-in, which fails as the real one
was seen to; with `--engine real` it is vLLM's CPU build, and only the rows that are marked for it run. Bounds leave
out model load. Results of rows run later are added to the day's file in benchmarks/results/, and docs/guard.md and
the README have its table; `--tables` writes them from that file again and runs nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import signal
import sys
import traceback
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.faults.group import Group  # noqa: E402
from tests.faults.matrix import MATRIX, Fault, Outcome, by_key, cells, from_json, markdown, misses, to_json  # noqa: E402
from tests.faults.rows import carry_out  # noqa: E402

from muster.sandbox import Sandbox, vllm_wheel  # noqa: E402


def chosen(words: str, engine: str) -> list[Fault]:
    """The rows asked for, in the order asked for; all that the engine is marked for without words."""
    if words:
        return [by_key(word) for word in words.split(",")]
    return [fault for fault in MATRIX if fault.real or engine == "standin"]


def place(engine: str) -> Path:
    """Where the day's results of one engine are kept."""
    return ROOT / "benchmarks" / "results" / f"recovery-{engine}-{date.today().isoformat()}.json"


def kept(engine: str) -> dict[str, Any]:
    """The day's results so far."""
    try:
        day: dict[str, Any] = json.loads(place(engine).read_text())
    except FileNotFoundError:
        day = {"rows": []}
    return day


def keep(engine: str, outcome: Outcome) -> None:
    """Add one row to the day's results, in place of an earlier run of it."""
    with Path("/run/lock/muster-recovery.lock").open("w") as lock:
        # Several sandboxes may carry rows out side by side.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _keep(engine, outcome)


def _keep(engine: str, outcome: Outcome) -> None:
    rows = [row for row in kept(engine)["rows"] if row["key"] != outcome.key] + [to_json(outcome)]
    order = {fault.key: number for number, fault in enumerate(MATRIX)}
    result = {
        "date": date.today().isoformat(),
        "engine": "stand-in" if engine == "standin" else f"vLLM {vllm_wheel.VERSION} (CPU build)",
        "kernel": platform.release().split("-")[0],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "rows": sorted(rows, key=lambda row: order[row["key"]]),
    }
    file = place(engine)
    file.write_text(json.dumps(result, indent=1) + "\n")
    into_docs(engine)


def table(engine: str) -> str:
    """The day's rows as Markdown, with what they were run on."""
    day = kept(engine)
    rows = [from_json(row) for row in day["rows"]]
    gaps = sorted(row.sampled for row in rows if row.sampled)
    about = f"{day['date']}, {day['engine']}, Linux {day['kernel']}, {day['cores']} cores for all hosts."
    looks = f" Longest time between two looks at the processes, in the median row {gaps[len(gaps) // 2] * 1000:.0f} ms"
    return markdown(rows) + f"\n{about}" + (f"{looks}, at worst {gaps[-1] * 1000:.0f} ms.\n" if gaps else "\n")


SHORT = ("kill-headless", "kill-worker", "kill-guard-head", "stop-core-load", "partition", "power-head", "oom")
"""Rows of the README."""


def short() -> str:
    """The README's few rows: when it was noticed, when all was gone, when every rank answered."""
    rows = {row["key"]: from_json(row) for row in kept("standin")["rows"]}
    out = "| fault | detected after | all gone after | bound | answering after |\n| --- | --- | --- | --- | --- |\n"
    for key in (key for key in SHORT if key in rows):
        title, detected, gone, bound, _, _, answering, _, _ = cells(rows[key])
        out += f"| {title} | {detected} | {gone} | {bound} | {answering} |\n"
    return out


def into_docs(engine: str) -> None:
    """Put the tables between their marks in docs/guard.md and the README."""
    if engine == "standin":
        _between(ROOT / "README.md", "<!-- recovery -->\n", f"\n{short()}\n")
    _between(ROOT / "docs" / "guard.md", f"<!-- recovery {engine} -->\n", f"\n{table(engine)}\n")


def _between(file: Path, mark: str, text: str) -> None:
    before, separator, rest = file.read_text().partition(mark)
    _, end, after = rest.partition("<!-- /recovery -->")
    if separator and end:
        file.write_text(f"{before}{mark}{text}{end}{after}")


def measure(box: Sandbox, faults: list[Fault], engine: str) -> int:
    """Deploy, carry the rows out, print and keep each; how many missed a bound or an oracle."""
    missed = 0
    with Group(box, engine) as group:
        group.deploy()
        for fault in faults:
            try:
                outcome = carry_out(group, fault)
            except (AssertionError, OSError, RuntimeError) as error:
                traceback.print_exc()
                outcome = Outcome(fault.key, oracles={"carried out": str(error)[:300]})
            keep(engine, outcome)
            missed += bool(misses(outcome) and not outcome.not_run)
            print(" | ".join(cells(outcome)), flush=True)
            group.restore_service()
    return missed


def main() -> int:
    """Boot, measure, take down; 1 when a row missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="keys of tests/faults/matrix.py, separated by commas")
    parser.add_argument("--engine", choices=("standin", "real"), default="standin")
    parser.add_argument("--name", default="recovery", help="of the sandbox")
    parser.add_argument("--keep", action="store_true", help="leave it up")
    parser.add_argument("--tables", action="store_true")
    given = parser.parse_args()
    if given.tables:
        into_docs(given.engine)
        print(table(given.engine), end="")
        return 0
    # A terminated benchmark takes its hosts down too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        box = Sandbox.up(given.name, 2)
        return int(measure(box, chosen(given.rows, given.engine), given.engine) > 0)
    finally:
        if not given.keep:
            Sandbox.named(given.name).down()


if __name__ == "__main__":
    sys.exit(main())
