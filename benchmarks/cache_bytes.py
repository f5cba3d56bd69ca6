"""Bytes of cache as muster counts them, against the specification of an installed vLLM; no GPU, no weights.

    .venv/bin/python benchmarks/cache_bytes.py ENGINE_PYTHON [--json FILE]

ENGINE_PYTHON is the Python of an environment with vLLM; the CPU build does. The models are those of
tests/spec/model_configs.json, with a cache in bf16 and in FP8, at 32,768 tokens and 8,192 of one batch. For each: what
a token takes in all layers that keep every token, and what a request takes in all others. Ends with 1 where one differs
by more than 1 %, or where vLLM makes none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from muster.plan import cache_size
from muster.plan.layout import Layout
from muster.spec.model_config import shape_of

ROOT = Path(__file__).parents[1]
CONFIGS: dict[str, dict[str, Any]] = json.loads((ROOT / "tests" / "spec" / "model_configs.json").read_text())
CONTEXT, BATCHED = 32768, 8192
TOLERANCE = 0.01
ONE = Layout("tp", tp=1, pp=1, dp=1, dcp=1, dp_local=1, expert_parallel=False)


def counted(name: str, cache: str) -> tuple[float, int]:
    """Return bytes of a token, and of a request besides, as muster counts them."""
    element = cache_size.element_bytes({"kv-cache-dtype": cache})
    size = cache_size.of(shape_of(CONFIGS[name]), ONE, element=element, batched_tokens=BATCHED, max_model_len=CONTEXT)
    return size.token_bytes, size.request_bytes


def specified(layers: list[dict[str, Any]]) -> tuple[float, int]:
    """Return the same of vLLM's layers."""
    token, request = (sum(layer["count"] * layer[key] for layer in layers) for key in ("token", "request"))
    return token, request


def differs(ours: float, theirs: float) -> float:
    """Return by how much, as a share of theirs."""
    return abs(ours - theirs) / theirs if theirs else float(ours != 0)


def ask(python: str) -> dict[str, Any]:
    """Have an engine specify the cache of every model; return its version and layers by model and type of cache."""
    cases = {
        f"{name} {cache}": {"config": config, "cache": cache, "context": CONTEXT, "batched": BATCHED}
        for name, config in CONFIGS.items()
        for cache in ("auto", "fp8")
    }
    program = [python, str(ROOT / "benchmarks" / "engine_cache_spec.py")]
    done = subprocess.run(program, input=json.dumps(cases), stdout=subprocess.PIPE, text=True, check=True)
    versions, *answers = map(json.loads, done.stdout.splitlines())
    said = {answer.pop("name"): answer for answer in answers}
    return {**versions, "date": date.today().isoformat(), "context": CONTEXT, "batched": BATCHED, "models": said}


def main() -> None:
    """Print the table; keep the engine's answers where a file is named."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("engine_python")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    result = ask(given.engine_python)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"vLLM {result['vllm']}, {result['date']}\n")
    print("| model | cache | vLLM's layers | B a token | vLLM | MiB a request besides | vLLM | differs |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    wrong = 0
    for case, answer in result["models"].items():
        name, cache = case.split()
        if "layers" not in answer:
            print(f"| {name} | {cache} | {answer['error']} | | | | | |")
            wrong += 1
            continue
        ours, theirs = counted(name, cache), specified(answer["layers"])
        kinds = ", ".join(f"{layer['count']} {layer['kind'].removesuffix('Spec')}" for layer in answer["layers"])
        most = max(map(differs, ours, theirs))
        wrong += most > TOLERANCE
        requests = " | ".join(f"{size / 2**20:,.1f}" if size else "" for size in (ours[1], theirs[1]))
        print(f"| {name} | {cache} | {kinds} | {ours[0]:,.0f} | {theirs[0]:,.0f} | {requests} | {most:.2%} |")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
