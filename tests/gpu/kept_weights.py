"""Which engines live on weights that `vllm preload` keeps on the GPU, and why those with experts die.

    python tests/gpu/kept_weights.py --out FILE [--site SITE] [CASE…]

Runs as root on a machine of your own with vLLM 0.33 and four GPUs. Small models with random weights on disk; the cases
run side by side, each with daemons of its own, `self` and `self-fp8` without. Every engine is asked prompts of 1 to 16
tokens, greedily; the result says how many it answered, and how many as the engine did that loaded the weights itself.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from muster.on_host import mapped_router  # noqa: E402
from tests.gpu import model  # noqa: E402
from tests.gpu.cases import COMPILATION, SHARED_ENV  # noqa: E402
from tests.gpu.run import ENGINE, FEWEST, MOST, VLLM, install, machine  # noqa: E402

PLACE = Path("/dev/shm/muster-kept")
EAGER = ("--enforce-eager",)
TP2 = ("--tensor-parallel-size", "2")
DP2 = ("--data-parallel-size", "2", "--enable-expert-parallel")
COMMON = (
    *("--max-model-len", "4096", "--gpu-memory-utilization", "0.1", "--kv-cache-memory-bytes", str(1 << 30)),
    *("--disable-custom-all-reduce", "--max-num-seqs", "8", "--compilation-config", COMPILATION),
)
MODELS = {"moe": "K2-shaped, bf16", "fp8": "K2-shaped, FP8 block scales", "mla": "MLA without experts, bf16"}
DAEMON_SECONDS, ENGINE_SECONDS = 120, 150


@dataclass(frozen=True)
class Case:
    """One engine: its GPUs, its model, what the plugin does (`look` or `bind`; "": no daemons), and its flags."""

    gpus: str
    model: str
    router: str = ""
    parallel: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether the engine maps weights; those that load them need no plugin."""
        return bool(self.router)


CASES = {
    "self": Case("0", "moe", flags=EAGER),
    "look": Case("1", "moe", "look", flags=EAGER),
    "mla-look": Case("2", "mla", "look", flags=EAGER),
    "bind": Case("3", "moe", "bind", flags=EAGER),
    "bind-graphs": Case("2", "moe", "bind"),
    "self-fp8": Case("0", "fp8", flags=EAGER),
    "bind-fp8": Case("1", "fp8", "bind", flags=EAGER),
    "bind-tp2": Case("0,1", "moe", "bind", TP2),
    "bind-dp2-ep": Case("2,3", "moe", "bind", DP2),
    "look-dp2-ep": Case("2,3", "moe", "look", DP2, EAGER),
}


def models() -> None:
    """Write the three models; the one without experts has dense layers alone."""
    size = {"layers": 4, "hidden": 2048, "experts": 32}
    model.write(PLACE / "moe", weights="bf16", **size)
    model.write(PLACE / "fp8", weights="fp8", **size)
    model.write(PLACE / "mla", weights="bf16", dense_layers=4, **size)


def plugin() -> Path:
    """Install the plugin as a distribution of its own, and return the directory for PYTHONPATH."""
    place = PLACE / "plugin"
    about = place / "muster_mapped_router-1.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    text = Path(mapped_router.__file__).read_text(encoding="utf-8")
    (place / "muster_mapped_router.py").write_text(text, encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: muster-mapped-router\nVersion: 1\n", encoding="utf-8")
    entry = "[vllm.general_plugins]\nmuster_mapped_router = muster_mapped_router:register\n"
    (about / "entry_points.txt").write_text(entry, encoding="utf-8")
    return place


class Run:
    """One case: its daemons, its engine, and what it answers."""

    def __init__(self, name: str, number: int, logs: Path, paths: str) -> None:
        self.case, self.number, self.log = CASES[name], number, logs / f"{name}-engine.log"
        self.daemon_log = logs / f"{name}-daemon.log"
        self.sockets = PLACE / f"sockets-{name}"
        self.children: list[subprocess.Popen[bytes]] = []
        cache = PLACE / f"cache-{name}"
        self.env = {
            **os.environ, **SHARED_ENV, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": self.case.gpus,
            "VLLM_CACHE_ROOT": str(cache), "TRITON_CACHE_DIR": str(cache / "triton"), "VLLM_NO_USAGE_STATS": "1",
            "VLLM_USE_DEEP_GEMM": "0", "HF_HUB_OFFLINE": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
            "VLLM_DP_MASTER_PORT": str(24000 + 20 * number), "VLLM_PORT": str(25000 + 40 * number),
        }  # fmt: skip

    def answers(self) -> dict[str, Any]:
        """Bring it up, ask it, take it down."""
        record: dict[str, Any] = {
            "model": MODELS[self.case.model], "flags": [*self.case.parallel, *self.case.flags], "error": None,
            "weights": "kept by vllm preload" if self.case.kept else "loaded by the engine",
            "router": "given the mapped tensor" if self.case.router == "bind" else "as it is", "texts": [],
        }  # fmt: skip
        try:
            if self.case.kept:
                self._daemons()
            began = time.monotonic()
            self._engine()
            record["healthy_seconds"] = round(time.monotonic() - began, 1)
            for count in range(FEWEST, MOST + 1):
                record["texts"].append(self._complete(list(range(300, 300 + count))))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            record["error"] = str(error)
        finally:
            for child in self.children:
                os.killpg(child.pid, signal.SIGKILL)
        words = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        if record["error"] and "illegal memory access" in words:
            record["error"] = f"illegal memory access, {len(record['texts'])} prompts answered"
        record["held_on_meta"] = sorted(set(re.findall(rf"{mapped_router.WORD} \w+ (.*)", words)))
        return record

    def _daemons(self) -> None:
        self.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        health = 28000 + self.number
        words = ("--weight-cache-socket-dir", str(self.sockets), "--weight-cache-master-port", str(29000 + self.number))
        port = ("--weight-cache-health-port", str(health), "--weight-cache-health-host", "127.0.0.1")
        argv = ["preload", "--model", self._model, *self.case.parallel, *COMMON, *words, *port]
        self._await(health, self._start(argv, self.daemon_log), DAEMON_SECONDS)

    def _engine(self) -> None:
        port = 27000 + self.number
        argv = ["serve", self._model, "--port", str(port), "--served-model-name", "m", *self.case.parallel, *COMMON]
        if self.case.kept:
            where = json.dumps({"socket_dir": str(self.sockets), "fallback": False})
            argv += ["--load-format", "ipc_cache", "--model-loader-extra-config", where]
        self.env[mapped_router.WORD] = self.case.router
        self._await(port, self._start([*argv, *self.case.flags], self.log), ENGINE_SECONDS)

    @property
    def _model(self) -> str:
        return str(PLACE / self.case.model)

    def _start(self, argv: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            vllm = [f"{ENGINE}/bin/vllm", *argv]
            child = subprocess.Popen(vllm, env=self.env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        self.children.append(child)
        return child

    def _await(self, port: int, child: subprocess.Popen[bytes], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and child.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=3).close()
                return
            except OSError:
                time.sleep(0.5)
        raise RuntimeError(f"port {port} does not answer /health within {seconds:g} s")

    def _complete(self, prompt: list[int]) -> str:
        body = {"model": "m", "prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True, "logprobs": 1}
        where = f"http://127.0.0.1:{27000 + self.number}/v1/completions"
        request = urllib.request.Request(where, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as response:
            return "".join(json.load(response)["choices"][0]["logprobs"]["tokens"])


def main() -> int:
    """Run the cases side by side and write what each answered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--site", default="")
    parser.add_argument("cases", nargs="*", default=list(CASES))
    args = parser.parse_args()
    logs = args.out.parent / f"{args.out.stem}-logs"
    logs.mkdir(parents=True, exist_ok=True)
    install(args.site)
    models()
    paths = ":".join(filter(None, [str(plugin()), args.site]))
    runs = [Run(name, list(CASES).index(name), logs, paths) for name in args.cases]
    with ThreadPoolExecutor(len(runs)) as pool:
        records = dict(zip(args.cases, pool.map(Run.answers, runs), strict=True))
    itself = {record["model"]: record["texts"] for name, record in records.items() if not CASES[name].kept}
    for name, record in records.items():
        texts, own = record.pop("texts"), itself.get(record["model"])
        same = None if own is None else sum(a == b for a, b in zip(texts, own, strict=False))
        record |= {"case": name, "answered": len(texts), "same_as_self": same}
        print(name, record, flush=True)
    result = {"machine": machine(), "vllm": VLLM, "kept_weights": list(records.values())}
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
