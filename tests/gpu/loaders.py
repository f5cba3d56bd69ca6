"""What each loader was measured to give, and how long the engine then takes to load with it, from a cold disk.

    python tests/gpu/loaders.py --out FILE [--site SITE] [--case CASE] [--measure] [--starts A,B] [--words "…"]

Runs as root on a machine of your own with vLLM and two GPUs. Writes the case's model to the local disk once, measures
the loaders on some of its files as a host does (muster.on_host.measure_loaders, in the engine's Python), then brings
the case up with each loader named in --starts, its files out of the page cache before, and reads what the engine logs.
FILE.json gets everything; expected / actual is printed for each.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from muster.on_host import loader_rates, measure_loaders  # noqa: E402
from muster.plan import load_ranks  # noqa: E402
from muster.plan.layout import Layout  # noqa: E402
from tests.gpu import model, run  # noqa: E402
from tests.gpu.cases import Case, find  # noqa: E402

LOADERS = (measure_loaders.AUTO, *measure_loaders.MODULES)
SECONDS = 120.0


def measured(case: Case, directory: Path, size: int, env: dict[str, str], *, filtered: bool) -> dict[str, Any]:
    """Measure every loader on a sample of a case's files, as its ranks on one host of all GPUs load."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    count, gpus = case.hosts
    gpus *= count
    data = case.strategy == "dp-ep"
    layout = Layout(case.strategy, 1 if data else gpus, 1, gpus if data else 1, 1, gpus if data else 1, not case.dense)
    ranks = load_ranks.of(None, layout, filtered=False)
    if not case.dense:
        ranks = replace(ranks, together=gpus, experts=config["n_routed_experts"], expert_ranks=gpus, filtered=filtered)
    sizes = {str(path): path.stat().st_size for path in directory.glob("*.safetensors")}
    files = loader_rates.sample(sizes, LOADERS, size)
    request = {**ranks.request(node_rank=0, seconds=SECONDS), "files": files}
    program = (
        "import json, sys\n"
        f"sys.path.insert(0, {str(ROOT / 'src')!r})\n"
        "from muster.on_host import measure_loaders\n"
        "print(json.dumps(measure_loaders.main(json.load(sys.stdin))))\n"
    )
    began = time.monotonic()
    done = subprocess.run(
        [f"{run.ENGINE}/bin/python", "-c", program], input=json.dumps(request), env={**os.environ, **env},
        capture_output=True, text=True, timeout=len(LOADERS) * SECONDS + 120, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    answer: dict[str, Any] = json.loads(lines[-1]) if lines else {"error": done.stderr[-2000:]}
    said = [line for line in done.stderr.splitlines() if "rror" in line or "WARN" in line][-12:]
    return {**answer, "seconds": round(time.monotonic() - began, 1), "ranks": ranks.__dict__, "said": said}


def main() -> int:
    """Measure, start, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--site", default="")
    parser.add_argument("--case", default="disk-dense")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--filtered", action="store_true", help="ranks skip the experts of others")
    parser.add_argument("--sample", type=int, default=loader_rates.SAMPLE, help="bytes that each loader reads")
    parser.add_argument("--starts", default="", metavar="A,B", help="loaders that the case is started with")
    parser.add_argument("--words", default="", help="further words for vllm serve")
    args = parser.parse_args()
    run.install(args.site)
    case = find(args.case)
    if args.filtered:
        case = replace(case, args=(*case.args, "--enable-ep-weight-filter"))
    case = replace(case, args=(*case.args, *shlex.split(args.words)), loads=())
    settings = run.settings_of(case, site=args.site, slot=0)
    directory = Path(str(settings.model))
    whole = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    path = args.out.with_suffix(".json")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"starts": []}
    result |= {"machine": run.machine(), "case": args.case, "bytes": whole}

    def keep() -> None:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    if args.measure:
        env = {**settings.extra_env, **({"PYTHONPATH": args.site} if args.site else {})}
        result["measured"] = measured(case, directory, args.sample, env, filtered=args.filtered)
        keep()
        print(json.dumps(result["measured"], indent=1), flush=True)
    rates = {
        name: found["rate"] for name, found in result.get("measured", {}).get("loaders", {}).items() if "rate" in found
    }
    for name in filter(None, args.starts.split(",")):
        words = () if name == measure_loaders.AUTO else ("--load-format", name)
        model.leave_page_cache(directory)
        gate = run.Gate(1)
        started = replace(case, args=(*case.args, *words))
        record = run.run(started, args.out.parent, gate, site=args.site, slot=0, empty=False, starts=True)
        logged = record["engine"]
        expected = whole / rates[name] if name in rates else None
        result["starts"].append({
            "loader": name, "filtered": args.filtered, "expected": expected, "engine": logged,
            "healthy_seconds": record.get("healthy_seconds"), "answer": record.get("answer"),
            "short_prompts": record.get("short_prompts"), "error": record.get("error"),
            "last_words": record.get("last_words"),
        })  # fmt: skip
        keep()
        print(name, "expected", expected and round(expected, 1), {k: v for k, v in logged.items() if v}, flush=True)
        print("  healthy", record.get("healthy_seconds"), record.get("answer"), record.get("error"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
