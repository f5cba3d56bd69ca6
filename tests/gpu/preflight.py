"""The preflight's host programs on this machine's own GPUs, and an all-reduce over them; reads, and prints verdicts.

    python tests/gpu/preflight.py [--gpus 2] [--python PYTHON] [--env NAME=VALUE]... [--out FILE]

PYTHON has torch (default: this one). On a machine that others share: --env NCCL_NVLS_ENABLE=0. Exit status 1 when a
check of GPUs, driver or NCCL fails. Needs muster's pure part alone (no pyinfra), and rich.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from muster.hosts import programs  # noqa: E402
from muster.preflight import allreduce, outcome, read_report  # noqa: E402
from muster.preflight.needs import Needs  # noqa: E402
from muster.preflight.table import console_on, render  # noqa: E402
from muster.preflight.tool_text import Unreadable  # noqa: E402
from muster.spec.hardware import GPUS  # noqa: E402

PORT = 29650
# Disks, RDMA and names of a borrowed machine are what they are.
OURS = ("driver.", "gpu.", "fabric_manager.", "nccl.")


def ask(argv: list[str], requests: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run host programs here as a host runs them."""
    done = subprocess.run(
        argv, input=programs.bundle(requests), capture_output=True, text=True, timeout=seconds, check=False
    )
    try:
        return programs.answers(done.stdout.splitlines())
    except ValueError as error:
        sys.exit(f"{error}\n{done.stderr[-2000:]}")


def main() -> None:
    """Probe, reduce, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, help="also write all that was gathered, as JSON")
    wanted = parser.parse_args()
    needs = Needs("here", gpus=wanted.gpus, vllm="0.33.0", address="127.0.0.1", interface="lo")
    sent = time.time()
    answers = ask(["sh", "-c", programs.COMMAND], needs.requests(), 180)
    report = read_report.from_answers("here", answers, sent, time.time())
    if isinstance(report.gpus, Unreadable):
        sys.exit(f"no GPUs here: {report.gpus.why}")
    product = next((gpu for gpu in GPUS.values() if {gpu.product} == {one.name for one in report.gpus}), None)
    if product:
        needs = Needs(**{**vars(needs), "product": product.product, "memory_mib": product.memory_mib})
    env = dict(pair.split("=", 1) for pair in wanted.env)
    request = allreduce.requests({"here": needs}, port=PORT, env=env)["here"]
    reduced = ask([wanted.python, "-I", "-"], {"measure_allreduce": request}, allreduce.SECONDS + 60)
    result = allreduce.read(reduced["measure_allreduce"])
    judged = outcome.judge_group(
        "this machine", [report], {"here": needs}, more=allreduce.verdicts({"here": result}, [report])
    )
    render(judged, console_on(sys.stdout))
    if wanted.out:
        whole = {"answers": answers, "nccl": reduced["measure_allreduce"], "outcome": judged.as_json()}
        wanted.out.write_text(json.dumps(whole, indent=2) + "\n")
    sys.exit(any(verdict.check.startswith(OURS) for verdict in judged.failures()))


if __name__ == "__main__":
    main()
