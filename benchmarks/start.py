"""Where the seconds go from an engine's fork to its first answer, per process, as JSON and as a picture.

    python benchmarks/start.py --out NAME [--vllm PROGRAM] [--times N] [--cold] [-- ARGUMENT…]
    python benchmarks/start.py --out NAME --stamped FILE…
    python benchmarks/start.py --draw NAME

The first form starts `vllm serve ARGUMENT…` N times on this machine (a tiny model with dummy weights where none is
named; on CPUs with vLLM's CPU build), with the caches of the start before unless `--cold`, asks it once and takes it
down. The second reads what tests/gpu/guarded.py kept beside its guards' logs: `starts.jsonl`, one line of an engine per
line, with the time at which it came. benchmarks/results/start-NAME.json is written, and docs/start-NAME.svg is drawn
from the last start in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.faults.sampler import children, stat_fields  # noqa: E402
from tests.free_port import free_port  # noqa: E402

from muster.bench import start_phases  # noqa: E402
from muster.bench.start_phases import Span  # noqa: E402
from muster.sandbox import tiny_model  # noqa: E402

SECONDS = 600.0
"""Longest start."""
TINY = ("--load-format", "dummy", "--max-model-len", "512", "--max-num-seqs", "8")


def born(pid: int) -> float | None:
    """Return when a process began, on the monotonic clock; None where it is gone."""
    fields = stat_fields(pid)
    if not fields:
        return None
    asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK") - asleep


class Start:
    """One start of an engine on this machine."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], port: int) -> None:
        self.lines: list[tuple[float, str]] = []
        self.born: dict[int, float] = {}
        self.port = port
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            argv, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))

    def answered(self) -> float:
        """Wait for the first answer and return when it was in.

        Raises:
            RuntimeError: the engine ended, or took longer than SECONDS.
        """
        while time.monotonic() < self.began + SECONDS:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"vllm ended with {self.process.returncode}: {''.join(t for _, t in self.lines)[-2000:]}"
                )
            for pid in descendants(self.process.pid):
                if pid not in self.born and (when := born(pid)) is not None:
                    self.born[pid] = when
            if complete(self.port):
                return time.monotonic()
            time.sleep(0.1)
        raise RuntimeError(f"no answer within {SECONDS:g} s")

    def end(self) -> None:
        """End the engine and all that it started."""
        pids = descendants(self.process.pid)
        os.killpg(self.process.pid, signal.SIGKILL)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def descendants(pid: int) -> list[int]:
    """Return a process and everything that it and its children started."""
    found = [pid]
    for each in found:
        found += children(each)
    return found


def complete(port: int) -> bool:
    """Ask for one completion of four tokens; whether it came."""
    body = json.dumps({"model": "m", "prompt": "hello world again", "max_tokens": 4}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def measure(vllm: str, arguments: Sequence[str], times: int, *, cold: bool) -> Iterator[dict[str, Any]]:
    """Start an engine again and again; yield each start as plain data."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        for name, text in tiny_model.files().items():
            (model / name).write_text(text, encoding="utf-8")
        words = list(arguments) or [str(model), *TINY]
        for number in range(times):
            port = free_port()
            cache = Path(folder) / (f"cache-{number}" if cold else "cache")
            env = {**os.environ, "VLLM_CACHE_ROOT": str(cache), "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
            env |= {"VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
            env.setdefault("VLLM_HOST_IP", "127.0.0.1")
            argv = [vllm, "serve", *words, "--served-model-name", "m", "--port", str(port), "--host", "127.0.0.1"]
            start = Start(argv, env, port)
            try:
                answered = start.answered()
            finally:
                start.end()
            kept = "empty" if cold or number == 0 else "persisted"
            yield summary(start.lines, began=start.began, births=start.born, answered=answered) | {"caches": kept}


def summary(
    lines: Sequence[tuple[float, str]], *, began: float, births: Mapping[int, float], answered: float | None
) -> dict[str, Any]:
    """Return one start as plain data: seconds to the answer, what decided them, and every process's phases."""
    spans = start_phases.spans(lines, began=began, born=births, answered=answered)
    last = answered if answered is not None else max(when for when, _ in lines)
    return {
        "seconds": round(last - began, 2),
        "deciding": start_phases.critical(spans),
        "spans": [asdict(span) for span in spans],
    }


def stamped(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the starts of a file that tests/gpu/guarded.py kept."""
    for line in path.read_text(encoding="utf-8").splitlines():
        start = json.loads(line)
        births = {int(pid): when for pid, when in start["born"].items()}
        read = summary(start["lines"], began=start["began"], births=births, answered=start["answered"])
        yield read | {key: start[key] for key in ("hosts", "caches") if key in start}


def draw(name: str) -> Path:
    """Draw the last start of a result: a lane per process, a colour per phase."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "muster", "font.size": 9})
    kept = json.loads(place(name).read_text(encoding="utf-8"))
    start = kept["starts"][-1]
    spans = [Span(**span) for span in start["spans"]]
    lanes = list(dict.fromkeys((span.process, span.pid) for span in spans))
    shades = pyplot.get_cmap("tab20").colors  # type: ignore[attr-defined]
    colours = {phase: shades[number] for number, phase in enumerate(start_phases.PHASES)}
    colours[start_phases.WAITING] = colours[start_phases.REST] = "#eeeeee"  # mostly spent waiting for others
    figure, axis = pyplot.subplots(figsize=(10, 1.6 + 0.32 * len(lanes)), layout="constrained")
    for span in spans:
        lane = lanes.index((span.process, span.pid))
        axis.broken_barh([(span.begin, span.end - span.begin)], (lane - 0.38, 0.76), facecolor=colours[span.phase])
    axis.set_yticks(range(len(lanes)), [process for process, _ in lanes])
    axis.invert_yaxis()
    axis.set_xlabel("seconds from the start of vllm serve")
    axis.spines[["top", "right"]].set_visible(False)
    used = [phase for phase in start_phases.PHASES if any(span.phase == phase for span in spans)]
    handles = [Patch(facecolor=colours[phase], label=phase) for phase in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle(f"{kept['about']}: first answer after {start['seconds']:.1f} s", x=0.01, ha="left")
    file = ROOT / "docs" / f"start-{name}.svg"
    figure.savefig(file, metadata={"Date": None})
    return file


def place(name: str) -> Path:
    """Return the file of a result."""
    return ROOT / "benchmarks" / "results" / f"start-{name}.json"


def main() -> int:
    """Measure or read starts, keep them, draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="NAME")
    parser.add_argument("--draw", metavar="NAME")
    parser.add_argument("--about", default="", help="what was started, for the picture's title")
    parser.add_argument("--vllm", default="vllm")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--stamped", type=Path, nargs="+")
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args()
    if args.out:
        if args.stamped:
            starts = [start for path in args.stamped for start in stamped(path)]
            where = ""
        else:
            starts = list(measure(args.vllm, args.arguments, args.times, cold=args.cold))
            done = subprocess.run([args.vllm, "--version"], capture_output=True, text=True, check=True)
            where = f"vLLM {done.stdout.split()[-1]}, {os.cpu_count()} cores, Linux {platform.release()}"
        about = args.about or f"{where}, {date.today()}"
        record = {"date": str(date.today()), "about": about, "machine": {"processor": where}, "starts": starts}
        place(args.out).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        for start in starts:
            print(start["seconds"], start["deciding"], flush=True)
    for name in filter(None, (args.out, args.draw)):
        print(draw(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
