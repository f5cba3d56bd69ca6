"""The seeds' commands on all GPUs of one machine: start, load, short prompts, memory, a KILL under guards.

    python tests/gpu/seeds.py --gpus N --out DIR [--site SITE] [--steps alone,beside,guarded] [CASE[@empty]]…

Runs tests/gpu/run.py and tests/gpu/guarded.py, as root on a machine of your own, inside 20 minutes: `tp` and `tp-dcp`
with a model of Kimi-K2's width and all of the memory, one after the other; then `tp-pp` (mp and Ray) and `dp-ep` as two
"hosts" of half the GPUs, and `tp` and `tp-dcp` with a cache that limits, side by side; then `dp-ep` under guards. What
is there after each step is in DIR/seeds.json and DIR/seeds.md, engine logs beside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.gpu import table  # noqa: E402

ALONE = ("tp", "tp-dcp")
BESIDE = ("tp-pp-mp", "tp-pp-ray", "dp-ep", "tp-queues", "tp-dcp-queues")
FAULTS = "kill-core,kill-head"
STEP_SECONDS = {"alone": 480, "beside": 480, "guarded": 240}
WITHIN = 0.03
"""How far the memory table may be from what the engine says."""


def steps(gpus: int, out: Path, site: str, further: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the command of each step; `further` cases run beside the others."""
    run = [sys.executable, str(HERE / "run.py"), "--out", str(out), *(["--site", site] if site else [])]
    guarded = [sys.executable, str(HERE / "guarded.py"), "--out", str(out / "guarded"), "--case", f"dp-ep/{gpus}"]
    return {
        "alone": [*run, *(f"{name}/{gpus}@empty" for name in ALONE)],
        "beside": [*run, "--parallel", *(f"{name}/{gpus}@empty" for name in BESIDE), *further],
        "guarded": [*guarded, *(["--site", site] if site else []), "--faults", FAULTS, "--idle", "--keep-caches"],
    }


def gathered(kept: dict[str, Any], guarded: dict[str, Any]) -> dict[str, Any]:
    """Return one record of all steps: the cases, memory beside the plan's, DCP beside TP, and the faults."""
    cases = {case["case"].partition("-of-")[0]: case for case in kept.get("cases", [])}
    result = {"machine": kept.get("machine") or guarded.get("machine"), "cases": list(cases.values())}
    result["memory"] = [beside_the_plan(case) for case in cases.values() if case.get("planned")]
    result["dcp"] = [
        compared(cases[tp], cases[dcp])
        for tp, dcp in (("tp", "tp-dcp"), ("tp-queues", "tp-dcp-queues"))
        if {tp, dcp} <= set(cases)
    ]
    return result | {key: guarded[key] for key in ("label", "faults", "first_start_seconds") if key in guarded}


def beside_the_plan(case: dict[str, Any]) -> dict[str, Any]:
    """Return what the plan's table and the engine say of one case, and by how much they differ."""
    engine, plan = case["engine"], case["planned"]
    said = {
        "weights_gib": engine["weights_gib"], "cache_gib": engine["cache_gib"],
        "cache_tokens": min(engine["cache_tokens"], default=None),
    }  # fmt: skip
    pairs = {key: (plan[key], value) for key, value in said.items() if plan.get(key) and value}
    off = {key: round(planned / value - 1, 4) for key, (planned, value) in pairs.items()}
    return {"case": case["case"], "label": case["label"], "said": pairs, "off": off}


def compared(tp: dict[str, Any], dcp: dict[str, Any]) -> dict[str, Any]:
    """Return DCP's tokens, throughput and time to the first token as multiples of TP's."""
    more: dict[str, Any] = {"cases": [tp["case"], dcp["case"]]}
    tokens = [min(case["engine"]["cache_tokens"], default=0) for case in (tp, dcp)]
    more |= {"tokens": tokens, "times": round(tokens[1] / tokens[0], 3) if all(tokens) else None}
    for one, other in zip(tp.get("loads", []), dcp.get("loads", []), strict=False):
        if not one["problems"] and not other["problems"]:
            more[one["load"]] = {
                "output_throughput": round(other["output_throughput"] / one["output_throughput"], 3),
                "mean_ttft_ms": round(other["latency"]["mean_ttft_ms"] / one["latency"]["mean_ttft_ms"], 3),
            }
    return more


def markdown(result: dict[str, Any]) -> str:
    """Return the tables of all of it."""
    head = "| case | shape | what | plan | engine | off |"
    lines = [table.markdown(result), head, "|" + " --- |" * (head.count("|") - 1)]
    for row in result["memory"]:
        for key, (plan, said) in row["said"].items():
            lines.append(f"| {row['case']} | {row['label']} | {key} | {plan:,} | {said:,} | {row['off'][key]:+.1%} |")
    lines += ["", *(_dcp(each) for each in result["dcp"])]
    for fault in result.get("faults", []):
        answers = list(fault.get("answering", {}).values())
        answered = f"every rank answers after {max(answers):.1f} s" if answers else "not answered"
        lines.append(f"{fault['text']}: new generation after {fault['new_generation']} s, {answered}")
    return "\n".join(lines) + "\n"


def _dcp(each: dict[str, Any]) -> str:
    (tp, dcp), (held, holds) = each["cases"], each["tokens"]
    loads = [
        f"{name}: {more['output_throughput']:g} x output tok/s, {more['mean_ttft_ms']:g} x mean TTFT"
        for name, more in each.items()
        if isinstance(more, dict)
    ]
    return "; ".join([f"{tp} -> {dcp}: {held:,} -> {holds:,} tokens ({each['times']:g} x)", *loads]) + "\n"


def read(path: Path) -> dict[str, Any]:
    """Return a step's result; empty where there is none yet."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def main() -> int:
    """Run the steps one after the other; 1 where one failed or a memory table is off by more than WITHIN."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--site", default="")
    parser.add_argument("--steps", default="alone,beside,guarded")
    parser.add_argument("cases", nargs="*", help="further cases of tests/gpu/cases.py, beside the others")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    failed, commands = False, steps(args.gpus, args.out, args.site, args.cases)
    for name in args.steps.split(","):
        argv = [
            "timeout",
            "-s",
            "INT",
            "-k",
            "20",
            str(STEP_SECONDS[name]),
            *commands[name],
        ]
        failed |= subprocess.run(argv, check=False).returncode != 0
        result = gathered(read(args.out / "result.json"), read(args.out / "guarded.json"))
        (args.out / "seeds.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (args.out / "seeds.md").write_text(markdown(result), encoding="utf-8")
    return int(failed or any(abs(off) > WITHIN for row in result["memory"] for off in row["off"].values()))


if __name__ == "__main__":
    sys.exit(main())
