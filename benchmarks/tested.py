"""What has been run where, as docs/tested.md: every row comes from a result that is kept.

    python benchmarks/tested.py [--check]

Reads the results of tests/gpu in benchmarks/results, and sandbox-hosts.json there, which names the distributions that
the sandbox's hosts were seen to work as. `--check` writes nothing and ends with 1 when the table is out of date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TABLE = ROOT / "docs" / "tested.md"
HEAD = """\
# What has been run

Made by `benchmarks/tested.py` from the results that are kept; nothing here is written by hand. On GPUs weights are
dummy or random, hosts are parts of one machine, and there is no systemd; systemd, sshd and several hosts are the
sandbox's.

"""


def gpu_rows() -> Iterator[tuple[str, ...]]:
    """Yield vLLM, GPUs, layout, what was done, how it ended, date."""
    for path in sorted(RESULTS.glob("*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        machine = kept.get("machine")
        if not isinstance(machine, dict) or "gpus" not in machine:
            continue
        on = (f"vLLM {machine['vllm']}", str(machine["gpus"]), f"driver {machine['driver']}")
        for case in kept.get("cases", ()):
            yield (*on, _layout(case), _done(case), _ended(case), str(machine["date"]))
        way = f" ({kept['way']})" if "way" in kept else ""
        for text, faults in _by_text(kept.get("faults", ())).items():
            yield (*on, kept["label"], f"guards: {text}{way}", _recovered(faults), str(machine["date"]))
        for row in kept.get("kept_weights", ()):
            yield (*on, " ".join(row["flags"]) or "TP1", _kept(row), row["error"] or "answers", str(machine["date"]))
        if "measured" in kept:
            run = f"loaders measured on a cold disk, {kept['case']}"
            yield (*on, kept["label"], run, _rates(kept["measured"]), str(machine["date"]))
            for start in kept["starts"]:
                yield (*on, kept["label"], _loading(start), _loaded(start), str(machine["date"]))
        if "crash" in kept:
            crash = kept["crash"]
            ended = f"generation ended {crash['words_to_end']} s after the engine's words"
            yield (*on, kept["label"], "guard: a crash while starting", ended, str(machine["date"]))


def _layout(case: dict[str, Any]) -> str:
    executor = f", {case['executor']}" if case.get("executor") else ""
    return f"{case['label']}{executor}"


def _done(case: dict[str, Any]) -> str:
    words = [f"{case['recipe']} {case['strategy']}"]
    flags = next(iter(case["argv"].values()), [])
    for flag in ("--quantization", "--kv-cache-dtype", "--attention-backend"):
        if flag in flags:
            words.append(f"{flag[2:]} {flags[flags.index(flag) + 1]}")
    words.append(f"{len(case.get('loads') or [])} load(s)")
    if case.get("short_prompts"):
        words.append("prompts of 1 to 16 tokens")
    return ", ".join(words)


def _ended(case: dict[str, Any]) -> str:
    return f"failed: {case['error']}" if "error" in case else "answers"


def _by_text(faults: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for fault in faults:
        grouped.setdefault(fault["text"], []).append(fault)
    return grouped


def _recovered(faults: Sequence[dict[str, Any]]) -> str:
    errors = [fault["error"] for fault in faults if fault.get("error")]
    if errors:
        return f"failed: {errors[0]}"
    times = [max(fault["answering"].values()) for fault in faults if fault.get("answering")]
    if not times:
        return "gone in its bound"
    often = f" (median of {len(times)})" if len(times) > 1 else ""
    return f"answers again after {median(times):.0f} s{often}"


def _kept(row: dict[str, Any]) -> str:
    return f"{row['model']}, weights {row['weights']}, router {row['router']}"


def _rates(measured: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {found['rate'] / 1e9:.2f} GB/s" if "rate" in found else f"{name} failed: {found['error']}"
        for name, found in measured["loaders"].items()
    )


def _loading(start: dict[str, Any]) -> str:
    skipped = ", others' experts skipped" if start["filtered"] else ""
    return f"weights from a cold disk by {start['loader']}{skipped}, prompts of 1 to 16 tokens"


def _loaded(start: dict[str, Any]) -> str:
    if start["error"]:
        return f"failed: {start['error']}"
    wrong = len(start["short_prompts"]["failures"])
    return f"read in {start['engine']['phases']['read weights']:.0f} s, {f'{wrong} failed' if wrong else 'answers'}"


def host_rows() -> list[dict[str, str]]:
    """Return the hosts that deploys were run on: distribution, systemd, Python, what was done, date."""
    rows: list[dict[str, str]] = json.loads((RESULTS / "sandbox-hosts.json").read_text(encoding="utf-8"))["hosts"]
    return rows


def table() -> str:
    """Return docs/tested.md."""
    lines = ["| vLLM | GPUs | driver | layout | run | ended | date |", "| --- | --- | --- | --- | --- | --- | --- |"]
    seen = dict.fromkeys(gpu_rows())
    lines += [f"| {' | '.join(row)} |" for row in sorted(seen, key=lambda row: row[-1], reverse=True)]
    hosts = ["| hosts | systemd | Python | engine | run | date |", "| --- | --- | --- | --- | --- | --- |"]
    keys = ("hosts", "systemd", "python", "engine", "run", "date")
    hosts += [f"| {' | '.join(row[key] for key in keys)} |" for row in host_rows()]
    return HEAD + "## On GPUs\n\n" + "\n".join(lines) + "\n\n## On hosts with systemd\n\n" + "\n".join(hosts) + "\n"


def main() -> int:
    """Write the table, or say that it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check:
        return int(table() != TABLE.read_text(encoding="utf-8"))
    TABLE.write_text(table(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
