"""Bring up the plans of the cases on this machine's GPUs, command by command, and measure them.

    python tests/gpu/run.py --out DIR [--site SITE] [--parallel] [--starts] [CASE[@empty]]…

Runs as root on a machine of your own with vLLM and two GPUs, four for the cases named so: it writes where the plan
writes, under /etc/muster, /var/lib/muster and /var/cache/muster. Needs muster's pure part alone (no pyinfra). Results
are added to DIR/result.json, and DIR/table.md shows them; engine logs lie beside.

    CASE       of tests/gpu/cases.py; `NAME/GPUS` is one of the seeds' commands on so many GPUs
    SITE       a directory for PYTHONPATH that holds vLLM, where it is not installed; not below a home directory
    --parallel bring the named cases up side by side, then load one after the other; all but tp and tp-dcp leave
               each other memory
    --starts   no load: bring each case up, ask it once, take it down; `--starts tp@empty tp` measures the caches
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import repeat
from pathlib import Path
from site import getsitepackages
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from muster.bench import engine_log  # noqa: E402
from muster.plan import flags_in_argv  # noqa: E402
from muster.plan.make import build_plan  # noqa: E402
from muster.plan.types import Check, HostPlan, Plan  # noqa: E402
from muster.spec import recipe as recipes  # noqa: E402
from muster.spec.hardware import GIB, GPUS  # noqa: E402
from muster.spec.settings import Settings  # noqa: E402
from muster.spec.shape import Shape  # noqa: E402
from tests.gpu import model, table  # noqa: E402
from tests.gpu.cases import PROOF, SHARED_ARGS, SHARED_ENV, Case, find  # noqa: E402
from tests.gpu.tool import Tool  # noqa: E402

ENGINE = "/opt/muster-gpu"
MODELS, DISK = Path("/dev/shm/muster-gpu"), Path("/opt/muster-models")
"""In memory; and on the local disk, which units see as well."""
WRITING = threading.Lock()
START_SECONDS, STOP_SECONDS = 360, 15
VLLM = "0.33.0"
FEWEST, MOST = 1, 16
"""Tokens of the short prompts that every rank is asked; a DCP rank holds no token of the shortest."""


def settings_of(case: Case, *, site: str, slot: int) -> Settings:
    """Return the settings of a case; `slot` keeps the ports of parallel cases apart."""
    directory = MODELS / ("dense" if case.dense else case.weights)
    size = {"layers": 4, "hidden": 2048, "experts": 32} if case.weights == "fp8" else {}
    if case.layers:
        directory = directory.with_name(f"k2-{case.layers}-layers")
        size = {"layers": case.layers, **model.K2}
    if case.dense:
        size = {"layers": 16, "hidden": 4096, "experts": 0}
    if case.weights == "disk":
        directory = DISK / case.name
        size = {"layers": case.layers, "hidden": 8192, "experts": 0} if case.dense else size
    with WRITING:
        model.write(directory, weights=case.weights, **size)
    model_config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    quantised = "--quantization" in case.args or case.weights == "fp8" or case.strategy == "tp-pp"
    bits = {"expert_bits": 8, "linear_bits": 8} if quantised and not case.dense else {}
    settings: dict[str, Any] = {
        "group": case.name,
        "strategy": case.strategy,
        "model": str(directory),
        "model_shape": {key: model_config[key] for key in Shape.model_fields if key in model_config} | bits,
        "offline": True,
        "supervisor": "systemd",  # the processes alone, in the plan's order; tests/gpu/guarded.py has them guarded
        "vllm_version": VLLM,
        "engine_path": ENGINE,
        "port": 8000 + slot,
        "rpc_port": 29550 + slot,
        "master_port": 29750 + slot,
        "control_port": 29600 + slot,
        "extra_args": [
            *SHARED_ARGS,
            *("--compilation-config", case.compilation),
            *(("--load-format", "dummy") if case.weights == "none" else ()),
            *case.args,
        ],
        "extra_env": {**SHARED_ENV, **case.env, **({"PYTHONPATH": site} if site else {})},
    }
    if "tp-pp" not in case.strategy:
        settings["max_model_len"] = 16384
    return Settings.model_validate(settings | dict(case.settings))


def install(site: str) -> None:
    """Make the directory that stands for the release: an environment that finds what this machine has."""
    if (Path(ENGINE) / "bin/vllm").exists():
        return
    venv.create(ENGINE, symlinks=True)
    bin_, (own,) = Path(ENGINE) / "bin", Path(ENGINE).glob("lib/python*/site-packages")
    there = [*([site] if site else []), *getsitepackages()]
    (own / "machine.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in there), "utf-8")
    for name, module in (("vllm", "vllm.entrypoints.cli.main"), ("ray", "ray.scripts.scripts")):
        text = f"#!{bin_}/python\nfrom {module} import main\nif __name__ == '__main__':\n    raise SystemExit(main())\n"
        (bin_ / name).write_text(text, encoding="utf-8")
        (bin_ / name).chmod(0o755)


def caches(plan: Plan, *, empty: bool) -> None:
    """Make the plan's directories; with `empty`, remove what earlier starts compiled."""
    places = [f"/var/cache/muster/{plan.group}", f"/var/lib/muster/{plan.group}"]
    for place in places:
        if empty:
            shutil.rmtree(place, ignore_errors=True)
        Path(place).mkdir(parents=True, exist_ok=True)
    if empty:
        for place in Path("/tmp").glob("torchinductor_*"):
            shutil.rmtree(place, ignore_errors=True)
    for host in plan.hosts.values():
        for path, file in host.files.items():
            if path.startswith(f"/etc/muster/{plan.group}/"):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text(file.text, encoding="utf-8")


class Life:
    """One start of a plan: its processes, in the plan's order, until `stop`."""

    def __init__(self, plan: Plan, logs: Path) -> None:
        self.plan, self.logs, self.children = plan, logs, dict[str, subprocess.Popen[bytes]]()
        self.began = time.monotonic()

    def start(self) -> None:
        """Start each layer and wait for what the plan awaits before the next.

        Raises:
            RuntimeError: a process ended or nothing answered within START_SECONDS.
        """
        for step in self.plan.steps:
            for place in (place for layer in step.order for place in layer):
                self._spawn(*place.rsplit(":", 1))
            for check in step.checks:
                self._await(check)

    def _spawn(self, host: str, name: str) -> None:
        node = self.plan.hosts[host]
        process = next(process for process in node.processes if process.name == name)
        env = {**os.environ, **process.env}
        argv = [f"{ENGINE}/bin/{process.argv[0]}", *process.argv[1:]]
        if len(self.plan.hosts) > 1:
            env["CUDA_VISIBLE_DEVICES"] = own_gpus(node, _gpus())
        if name == "ray" and node.node_rank:  # Ray binds its ports on all addresses: the second node's move
            argv = [str(int(word) + 20000) if _is_port(argv[at - 1]) else word for at, word in enumerate(argv)]
        for key in ("RAY_AUTH_TOKEN_PATH",):
            if key in env:
                Path(env[key]).parent.mkdir(parents=True, exist_ok=True)
                Path(env[key]).write_text("ab" * 32, encoding="utf-8")
                Path(f"/etc/muster/{self.plan.group}/ray-token").write_text("ab" * 32, encoding="utf-8")
        for key in ("HOME", "XDG_CACHE_HOME", "VLLM_CACHE_ROOT"):
            Path(env[key]).mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{host}-{name}.log").open("wb") as out:
            child = subprocess.Popen(argv, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        self.children[f"{host}-{name}"] = child

    def _await(self, check: Check) -> None:
        deadline = self.began + START_SECONDS
        while not _answers(check):
            for name, child in self.children.items():
                if child.poll() is not None:
                    raise RuntimeError(f"{name} ended with {child.returncode}")
            if any("illegal memory access" in line for line in self.lines()):
                raise RuntimeError("illegal memory access; no process ended")
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {START_SECONDS} s: {check.text}")
            time.sleep(0.5)

    def lines(self) -> list[str]:
        """Return what all processes of the plan logged."""
        paths = [self.logs / f"{name}.log" for name in self.children]
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
        return "\n".join(texts).splitlines()

    def stop(self) -> None:
        """End every process and all it started."""
        for sign, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 10)):
            for child in self.children.values():
                try:
                    os.killpg(child.pid, sign)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and any(child.poll() is None for child in self.children.values()):
                time.sleep(0.2)


def own_gpus(host: HostPlan, there: Sequence[str]) -> str:
    """Return those of some GPUs of this machine that one of its hosts sees, as CUDA_VISIBLE_DEVICES has them."""
    return ",".join(there[(host.node_rank * host.gpus + n) % len(there)] for n in range(host.gpus))


def _gpus() -> list[str]:
    shown = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True)
    return shown.stdout.split() or ["0"]


def _is_port(flag: str) -> bool:
    return flag.startswith("--") and flag.endswith("-port")


def _answers(check: Check) -> bool:
    if isinstance(check.target, tuple):
        return subprocess.run(check.target, capture_output=True, timeout=60, check=False).returncode == 0
    try:
        if check.kind == "tcp":
            address, port = check.target.rsplit(":", 1)
            socket.create_connection((address, int(port)), timeout=2).close()
            return True
        with urllib.request.urlopen(check.target, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def complete(plan: Plan, prompt: str | list[int], *, seconds: float, rank: int | None = None, **more: Any) -> str:
    """Return what the endpoint completes a prompt with, greedily.

    Raises:
        OSError, ValueError, KeyError: no answer, or one of another form.
    """
    body = {"model": plan.served_model_name, "prompt": prompt, "temperature": 0, **more}
    headers = {"Content-Type": "application/json"} | ({} if rank is None else {"X-data-parallel-rank": str(rank)})
    request = urllib.request.Request(f"{plan.local_endpoint}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=seconds) as response:
        return str(json.load(response)["choices"][0]["text"])


def ask(plan: Plan) -> str:
    """Return what the endpoint answers to one prompt, or that it does not."""
    try:
        return complete(plan, "hello world", seconds=60, max_tokens=16)
    except (OSError, ValueError, KeyError) as error:
        return f"no answer: {error}"


def short_prompts(plan: Plan) -> dict[str, Any]:
    """Ask every data parallel rank prompts of 1 to 16 tokens; return how many were asked, and the first failures."""
    ranks = sorted(rank for host in plan.hosts.values() for rank in host.dp_ranks) or [0]
    result: dict[str, Any] = {"asked": f"{FEWEST} to {MOST} tokens, {len(ranks)} rank(s)", "failures": []}
    for rank in ranks:
        for count in range(FEWEST, MOST + 1):
            try:
                complete(plan, list(range(300, 300 + count)), seconds=20, rank=rank, max_tokens=4, ignore_eos=True)
            except (OSError, ValueError, KeyError) as error:
                result["failures"].append(f"rank {rank}, {count} tokens: {error}")
                if len(result["failures"]) > 2:
                    return result
    return result


class Gate:
    """Opens when every case is up or has failed: the loads then run one after the other."""

    def __init__(self, cases: int) -> None:
        self.missing, self.turn, self.open = cases, threading.Lock(), threading.Event()

    def arrive(self) -> None:
        """Say that one more case is up, or has failed."""
        with self.turn:
            self.missing -= 1
            if self.missing <= 0:
                self.open.set()


def run(
    case: Case, out: Path, gate: Gate, *, site: str, slot: int, empty: bool, starts: bool = False
) -> dict[str, Any]:
    """Bring one case up, measure it, take it down, and return all of it as plain data."""
    settings = settings_of(case, site=site, slot=slot)
    plan = build_plan(recipes.load(case.recipe), case.specs(product()), settings)
    logs = out / "logs" / case.name
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    fresh = not Path(f"/var/cache/muster/{plan.group}").exists()
    caches(plan, empty=empty)
    life = Life(plan, logs)
    record: dict[str, Any] = {
        "case": case.name, "label": plan.label, "recipe": case.recipe, "strategy": case.strategy,
        "executor": settings.executor if "PP" in plan.label else None, "digest": plan.digest,
        "caches": "empty" if empty or fresh else "persisted", "side_by_side": gate.missing > 1,
        "weights": "dummy" if case.weights == "none" else f"random, {case.weights}",
        "argv": {f"{host.name}:{p.name}": list(p.argv) for host in plan.hosts.values() for p in host.processes},
    }  # fmt: skip
    tools: list[Tool] = []
    try:
        try:
            life.start()
            record["healthy_seconds"] = round(time.monotonic() - life.began, 1)
            record["answer"] = ask(plan)
            tools = [] if starts else [Tool(plan, load, logs, ENGINE) for load in case.loads]
            for tool in tools:
                tool.hold()
        finally:
            gate.arrive()
        gate.open.wait(START_SECONDS)
        with gate.turn:
            record["loads"] = [tool.measure() for tool in tools]
            record["short_prompts"] = short_prompts(plan)
            record["answer_after"] = ask(plan)
            if record["short_prompts"]["failures"] or record["answer_after"].startswith("no answer"):
                raise RuntimeError(f"short prompts: {record['short_prompts']['failures']}; {record['answer_after']}")
    except RuntimeError as error:
        record["error"] = str(error)
    finally:
        for tool in tools:
            tool.end()
        life.stop()
        if not slot:
            settle()
    lines = life.lines()
    record["engine"] = asdict(engine_log.parse(lines))
    record["planned"] = planned(plan, settings)
    if "error" in record or any(load["problems"] for load in record["loads"]):
        record["last_words"] = [line[-400:] for line in lines if "rror" in line or "llegal" in line][:12]
    return record


def planned(plan: Plan, settings: Settings) -> dict[str, Any]:
    """Return what the plan's memory table says of what an engine logs, in GiB of one GPU and tokens of one DP rank."""
    memory = plan.memory
    if memory is None:
        return {}
    fixed = flags_in_argv.values_of(settings.extra_args).get("kv-cache-memory-bytes")
    weights = sum(part.bytes for part in memory.parts if part.name != "allowance")
    tokens = int(int(fixed) / memory.token_bytes) if fixed else memory.tokens
    return {
        "weights_gib": round(weights / GIB, 3), "cache_gib": None if fixed else round(memory.cache / GIB, 2),
        "cache_tokens": tokens, "token_bytes": memory.token_bytes,
    }  # fmt: skip


def product() -> str:
    """Return the profile of this machine's GPUs; the first of the tables where they are none of it."""
    shown = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    names = {gpu.product: gpu.profile for gpu in GPUS.values()}
    return next((names[name] for name in shown.stdout.splitlines() if name in names), "H200")


def settle() -> None:
    """Wait, at most 30 s, until what was stopped has given its GPU memory back."""
    for _ in range(30):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        shown = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.split()
        if all(int(mib) < 2000 for mib in shown):
            return
        time.sleep(1)


def machine() -> dict[str, Any]:
    """Return versions and hardware, without anything that names the machine."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    shown = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    name, memory, driver = (part.strip() for part in shown[0].split(","))
    import torch

    return {
        "date": time.strftime("%Y-%m-%d"), "gpus": f"{len(shown)}x {name}", "memory": memory, "driver": driver,
        "torch": torch.__version__, "vllm": VLLM, "python": sys.version.split()[0],
    }  # fmt: skip


def main() -> int:
    """Run the cases named and write result.json and table.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--site", default="")
    parser.add_argument("--parallel", action="store_true")
    parser.add_argument("--starts", action="store_true")
    parser.add_argument("cases", nargs="*", default=list(PROOF))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    store = args.out / "result.json"
    kept = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {"cases": []}
    install(args.site)

    shared = Gate(len(args.cases))

    def one(slot: int, name: str) -> dict[str, Any]:
        case, _, how = name.partition("@")
        gate = shared if args.parallel else Gate(1)
        empty = how == "empty"
        return run(find(case), args.out, gate, site=args.site, slot=slot, empty=empty, starts=args.starts)

    def keep(record: dict[str, Any]) -> None:
        kept["cases"].append(record)
        store.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        (args.out / "table.md").write_text(table.markdown(kept), encoding="utf-8")
        print(table.line(record), flush=True)

    kept["machine"] = machine()
    with ThreadPoolExecutor(len(args.cases) if args.parallel else 1) as pool:
        for record in pool.map(one, range(len(args.cases)) if args.parallel else repeat(0), args.cases):
            keep(record)
    return 1 if any("error" in record for record in kept["cases"]) else 0


if __name__ == "__main__":
    sys.exit(main())
