"""`vllm bench serve`, started early and held until its turn: loading the tool takes 20 s, the load itself a few."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from muster.bench import bench_result, scenario
from muster.plan.types import Plan

READY = "Starting initial single prompt test run"
IMPORT_SECONDS, LOAD_SECONDS = 120, 120


class Tool:
    """One run of one load."""

    def __init__(self, plan: Plan, load: scenario.Scenario, out: Path, engine: str) -> None:
        self.load, self.file = load, out / f"bench-{load.name}.json"
        self.log = out / f"bench-{load.name}.log"
        argv = scenario.argv(
            load, prompts=int(load.flags["num-prompts"]), base_url=plan.local_endpoint, model=plan.model,
            served_model_name=plan.served_model_name, result_dir=str(out), result_filename=self.file.name,
        )  # fmt: skip
        env = {**os.environ, **plan.head.processes[-1].env}
        with self.log.open("wb") as log:
            argv[0] = f"{engine}/bin/vllm"
            self.child = subprocess.Popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT)

    def hold(self) -> None:
        """Stop the tool where it is about to begin; it must not have begun."""
        deadline = time.monotonic() + IMPORT_SECONDS
        while READY not in self.log.read_text(errors="replace") and time.monotonic() < deadline:
            if self.child.poll() is not None:
                return
            time.sleep(0.02)
        self.child.send_signal(signal.SIGSTOP)

    def measure(self) -> dict[str, Any]:
        """Let the tool run and return its figures, or why there are none."""
        let_go = time.monotonic()
        try:
            self.child.send_signal(signal.SIGCONT)
            self.child.wait(LOAD_SECONDS)
            result = bench_result.parse_text(self.file.read_text(encoding="utf-8"))
        except (OSError, subprocess.TimeoutExpired, bench_result.UnreadableResult) as error:
            return {"load": self.load.name, "problems": [str(error)[:300]]}
        early = result.duration > time.monotonic() - let_go  # its clock ran while it was held
        problems = [*result.problems, *(["the tool began before its turn"] if early else [])]
        return {"load": self.load.name, "flags": dict(self.load.flags), "problems": problems, **asdict(result)}

    def end(self) -> None:
        """End the tool if it still runs."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait(10)
