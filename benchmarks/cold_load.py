"""Expected against actual: how long vLLM takes to load weights that lie on the disk alone.

    python benchmarks/cold_load.py --python PYTHON [--gib 3] [--ranks 1 2] [--times 3] [--folder DIR] [--out FILE]

Writes a Llama of so many GiB (bf16, shards of 1 GiB) and, N times for each number of ranks, measures the disk as
`muster stage` does, has the page cache forget the model's files, has vLLM's default loader load them (in the engine's
own Python, each rank the whole model in a process of its own, all at the same time) and reads what it logs of the load.
No other file leaves the cache. Measured besides: the rate over all bytes, where `muster stage` reads for 2 s; and a
second load, from the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from muster.bench import engine_log  # noqa: E402
from muster.on_host import read_rate  # noqa: E402
from muster.sandbox import tiny_model  # noqa: E402

READY, DONE = "the loader is ready", "the loader is done"
LOADER = f"""
import gc, sys, torch
from vllm.config import set_current_vllm_config
from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader import get_model
torch.accelerator.empty_cache = lambda: None  # as the CPU build's own worker has it
config = EngineArgs(model=sys.argv[1], dtype="bfloat16", max_model_len=512, enforce_eager=True).create_engine_config()
with set_current_vllm_config(config):
    init_distributed_environment(1, 0, "file://" + sys.argv[2], 0, backend="gloo")
    ensure_model_parallel_initialized(1, 1)
    print({READY!r}, flush=True)
    for _ in sys.stdin:
        config.compilation_config.static_forward_context.clear()
        model = get_model(vllm_config=config)
        del model
        gc.collect()
        print({DONE!r}, flush=True)
"""
HIDDEN, INTERMEDIATE, HEADS, VOCABULARY = 2048, 8192, 16, 1024
SHARD = 1 << 30
SECONDS = 120.0
"""Longest read of all bytes."""
_BF16 = 2


def tensors(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of every tensor of a Llama, in the order of its layers."""
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for number in range(layers):
        at = f"model.layers.{number}."
        for name in "qkvo":
            yield f"{at}self_attn.{name}_proj.weight", (HIDDEN, HIDDEN)
        yield f"{at}mlp.gate_proj.weight", (INTERMEDIATE, HIDDEN)
        yield f"{at}mlp.up_proj.weight", (INTERMEDIATE, HIDDEN)
        yield f"{at}mlp.down_proj.weight", (HIDDEN, INTERMEDIATE)
        yield f"{at}input_layernorm.weight", (HIDDEN,)
        yield f"{at}post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)


def bytes_of(shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor."""
    count = _BF16
    for size in shape:
        count *= size
    return count


def write(place: Path, gib: float) -> None:
    """Write the model: weights of small random numbers, tokenizer and configuration of the tiny one."""
    layer = sum(bytes_of(shape) for name, shape in tensors(1) if ".layers." in name)
    layers = max(1, round(gib * (1 << 30) / layer))
    for name, text in tiny_model.files().items():
        (place / name).write_text(text, encoding="utf-8")
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": layers}
    config |= {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": HIDDEN // HEADS}
    config |= {"vocab_size": VOCABULARY, "tie_word_embeddings": False}
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    for each in tensors(layers):
        if sum(bytes_of(shape) for _, shape in shards[-1]) >= SHARD:
            shards.append([])
        shards[-1].append(each)
    chance = random.Random(1)
    # The high byte of a bf16 that is 0x3c or 0xbc makes it about a hundredth.
    block = bytes(byte for _ in range(1 << 19) for byte in (chance.randrange(256), chance.choice((0x3C, 0xBC))))
    for number, shard in enumerate(shards, 1):
        with (place / f"model-{number:05}-of-{len(shards):05}.safetensors").open("wb") as file:
            _shard(file, shard, block)
            file.flush()
            os.fsync(file.fileno())


def _shard(file: Any, shard: list[tuple[str, tuple[int, ...]]], block: bytes) -> None:
    at, header = 0, dict[str, Any]()
    for name, shape in shard:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + bytes_of(shape)]}
        at += bytes_of(shape)
    text = json.dumps(header).encode()
    file.write(struct.pack("<Q", len(text)) + text)
    while at > 0:
        file.write(block[: min(at, len(block))])
        at -= len(block)


def forget(files: list[Path]) -> None:
    """Have the page cache forget these files."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


class Loader:
    """vLLM's own loader in a process of its engine's Python: loads the model, again and again."""

    def __init__(self, python: str, place: Path, number: int) -> None:
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
        env |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_HOST_IP": "127.0.0.1"}
        self.process = subprocess.Popen(
            [python, "-c", LOADER, str(place), str(place.parent / f"meet-{number}")],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.until(READY)

    def begin(self) -> None:
        """Have it load."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def until(self, word: str) -> list[str]:
        """Return its lines up to one that holds a word.

        Raises:
            RuntimeError: it ended before.
        """
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if word in line:
                return lines
        raise RuntimeError("".join(lines)[-3000:])


def loaded(loaders: list[Loader]) -> float:
    """Load once in all loaders at a time; return the seconds of the slowest, as it logged them."""
    for loader in loaders:
        loader.begin()
    return max(engine_log.parse(loader.until(DONE)).phases["read weights"] for loader in loaders)


def row(loaders: list[Loader], place: Path) -> dict[str, Any]:
    """Measure the disk, load once in all loaders at a time, and return both."""
    files = sorted(place.glob("*.safetensors"))
    sizes = [(str(path), path.stat().st_size) for path in files]
    total, ranks = sum(size for _, size in sizes), len(loaders)
    most = min(read_rate.BYTES, total // 2)
    before = round(os.getloadavg()[0], 1)
    forget(files)
    rate = read_rate.measured(read_rate.shared(sizes, 0, most, 1))
    forget(files)
    whole = read_rate.measured(read_rate.shared(sizes, 0, total, 1), SECONDS)
    forget(files)
    actual, warm = loaded(loaders), loaded(loaders)
    return {
        "ranks": ranks,
        "bytes": total,
        "rate": round(rate),
        "rate over all bytes": round(whole),
        "expected": round(total / rate, 2),
        "expected of all bytes": round(total / whole, 2),
        "actual": actual,
        "from the cache": warm,
        "actual / expected": round(actual * rate / total, 3),
        "actual / expected of all bytes": round(actual * whole / total, 3),
        "load average": before,
    }


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="of the engine's virtual environment")
    parser.add_argument("--gib", type=float, default=3.0)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one otherwise")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    loaders: list[Loader] = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        place = Path(folder) / "model"
        place.mkdir()
        write(place, args.gib)
        rows = []
        try:
            for ranks in args.ranks:
                while len(loaders) < ranks:
                    loaders.append(Loader(args.python, place, len(loaders)))
                for _ in range(args.times):
                    rows.append(row(loaders[:ranks], place))
                    print(json.dumps(rows[-1]), flush=True)
        finally:
            for loader in loaders:
                loader.process.kill()
                loader.process.wait()
    argv = [args.python, "-c", "import importlib.metadata as m; print(m.version('vllm'))"]
    version = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "vllm": version}
    if args.out:
        record = {"date": str(date.today()), "machine": machine, "rows": rows}
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for ranks in args.ranks:
        mine = [each for each in rows if each["ranks"] == ranks]
        for name in ("actual / expected", "actual / expected of all bytes"):
            print(f"{ranks} ranks, median of {name}: {median(each[name] for each in mine):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
