"""What the guard costs, and whether it restarts a group that is only busy.

    python benchmarks/guard_soak.py [--engine standin|real] [--minutes 30] [--pairs 0] [--slice 5] [--name soak]

Needs root: boots two sandbox hosts, deploys a group of two DP ranks under the guard, and keeps every rank saturated.

- The soak counts restarts (must be 0), polls `/ready` every second, and reads each guard's processor time and
  resident memory from /proc.
- `--pairs` compares throughput with and without the guards in one life of one engine: slices of `--slice` seconds in
  which every guard is stopped (SIGSTOP: it polls, relays and answers nothing) alternate with slices in which it works,
  in the order ABBA, so that what else the machine does falls on both alike. Tokens are the engine's own count. Where
  other work takes the cores, tokens a second say little: tokens a second of the engine's own processor time stand
  beside them, and show what the guard makes the engine do; what the guard takes itself is in the soak.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import guard_answers, standin  # noqa: E402
from tests.faults.sampler import children, cpu_seconds  # noqa: E402

from muster.sandbox import Sandbox, serving_settings  # noqa: E402

UNIT = "muster-kimi-k2-instruct.service"
INVENTORY = """\
from muster.sandbox.as_inventory import hosts as _hosts
hosts = (_hosts({name!r}), {settings!r})
"""
SETTINGS = {
    "strategy": "dp-ep",
    "engine_path": standin.PATH,
    "allow_oversubscription": True,
    "allow_unpinned_code": True,
    "offline": True,
    "ready_timeout": 120,
}
LONGEST_STOP = 9.0
"""Seconds that a guard may stand still: at 15 (silence_timeout) the group would be stopped, rightly."""
TOKENS = {"standin": 100, "real": 64}
"""Tokens of one answer."""


Rate = tuple[float, float]


class Guard:
    """One host's guard as this machine sees it: its process and the journalctl that it reads the kernel's log with."""

    def __init__(self, box: Sandbox, host: str, init: int) -> None:
        self.host = host
        main = box.exec(host, ["systemctl", "show", "-P", "MainPID", UNIT]).stdout.strip()
        space = str(Path(f"/proc/{init}/ns/pid").readlink())
        self.pid = next(int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _is(entry, space, main))
        self.helpers = [
            pid for pid in children(self.pid) if Path(f"/proc/{pid}/comm").read_text().strip() == "journalctl"
        ]

    def seconds(self) -> float:
        """Processor seconds so far, the helper's too."""
        return sum(cpu_seconds(pid) for pid in (self.pid, *self.helpers))

    def engine_seconds(self) -> float:
        """Processor seconds of every process below the guard but its helper."""
        below, processes = [pid for pid in children(self.pid) if pid not in self.helpers], list[int]()
        while below:
            processes.append(below.pop())
            below += children(processes[-1])
        return sum(cpu_seconds(pid) for pid in processes)

    def memory(self) -> tuple[float, float]:
        """Resident MiB, now and at most."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        now, most = (int(text.split(f"{key}:")[1].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
        return now, most


def _is(entry: Path, space: str, main: str) -> bool:
    try:
        own = (entry / "status").read_text().split("NSpid:")[1].split("\n")[0].split()
        return str((entry / "ns/pid").readlink()) == space and own[-1] == main
    except (OSError, IndexError):
        return False


class Load:
    """Clients that keep every rank busy until `end`."""

    def __init__(self, head: str, clients: int, tokens: int) -> None:
        self.answered = self.failed = 0
        self._body = json.dumps(
            {"model": "kimi-k2", "prompt": "1 2 3 4 5 6 7 8", "max_tokens": tokens, "ignore_eos": True}
        )
        self._url = f"http://{head}:8000/v1/completions"
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n % 2,), daemon=True) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, rank: int) -> None:
        headers = {"Content-Type": "application/json", "X-data-parallel-rank": str(rank)}
        while not self._over.is_set():
            try:
                request = urllib.request.Request(self._url, self._body.encode(), headers)
                with urllib.request.urlopen(request, timeout=300) as answer:
                    answer.read()
                self.answered += 1
            except OSError:
                self.failed += 1
                time.sleep(1)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(300)


def get(address: str, path: str) -> tuple[int, str]:
    """Return status and body; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return 0, ""


def tokens(head: str) -> float:
    """Return what the engine has generated so far, over all ranks."""
    lines = get(f"{head}:8000", "/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:generation_tokens_total{"))


def deploy(box: Sandbox, engine: str, directory: Path) -> None:
    """Run the production deploy against the sandbox."""
    inventory = "inventories/sandbox.py"
    if engine == "standin":
        for host in box.hosts:
            standin.place(box.tree(host.name))
            box.exec(host.name, ["/bin/sh", "-c", "mkdir -p /etc/standin; echo 0.05 >/etc/standin/token_seconds"])
        inventory = str(directory / "inventory.py")
        Path(inventory).write_text(
            INVENTORY.format(name=box.name, settings={**SETTINGS, **serving_settings.open_to_this_machine(box.name)})
        )
    done = subprocess.run(
        [str(Path(sys.executable).parent / "pyinfra"), "-y", inventory, "deploys/kimi_k2_instruct.py"],
        cwd=ROOT,
        env={**os.environ, "MUSTER_SANDBOX": box.name, "XDG_STATE_HOME": str(directory / "state")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the deploy ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def soak(head: str, guards: list[Guard], minutes: float) -> dict[str, Any]:
    """Watch a saturated group for some minutes."""
    begun, spent = time.monotonic(), {guard.host: guard.seconds() for guard in guards}
    made, unready, polls = tokens(head), 0, 0
    while time.monotonic() - begun < minutes * 60:
        polls += 1
        unready += get(f"{head}:29600", "/ready")[0] != 200
        time.sleep(1)
    passed = time.monotonic() - begun
    return {
        "minutes": round(passed / 60, 1),
        "tokens_per_s": round((tokens(head) - made) / passed, 1),
        "looks_at_ready": polls,
        "not_ready": unready,
        "guards": {
            guard.host: {
                "percent_of_a_core": round(100 * (guard.seconds() - spent[guard.host]) / passed, 2),
                "resident_mib": round(guard.memory()[0], 1),
                "most_mib": round(guard.memory()[1], 1),
            }
            for guard in guards
        },
    }


def compare(head: str, guards: list[Guard], pairs: int, seconds: float) -> dict[str, Any]:
    """Alternate slices with and without the guards; tokens a second of each, and the ratio with its 95 % interval."""
    rates: dict[str, list[Rate]] = {"with": [], "without": []}
    for number in range(pairs):
        for kind in ("with", "without") if number % 2 else ("without", "with"):
            rate = None
            while rate is None:
                rate = _slice(head, guards, kind, seconds)
            rates[kind].append(rate)
    wall, cpu = ([[rate[which] for rate in rates[kind]] for kind in ("with", "without")] for which in (0, 1))
    return {
        "pairs": pairs,
        "slice_s": seconds,
        "tokens_per_s": ratio(*wall),
        "tokens_per_engine_cpu_s": ratio(*cpu),
    }


def _slice(head: str, guards: list[Guard], kind: str, seconds: float) -> Rate | None:
    """Tokens a second of one slice, and a second of the engine's processor time.

    None where reading the counters took so long that the guards had to go on.
    """
    late = threading.Timer(LONGEST_STOP, _go_on, [guards])
    late.start()
    try:
        for guard in guards if kind == "without" else ():
            os.kill(guard.pid, signal.SIGSTOP)
        made, begun, spent = tokens(head), time.monotonic(), sum(guard.engine_seconds() for guard in guards)
        time.sleep(seconds)
        new, passed = tokens(head) - made, time.monotonic() - begun
        cpu = sum(guard.engine_seconds() for guard in guards) - spent
        return (new / passed, new / cpu) if late.is_alive() else None
    finally:
        late.cancel()
        _go_on(guards)
        time.sleep(2)  # what waited for the guards is done before the next slice


def _go_on(guards: list[Guard]) -> None:
    for guard in guards:
        os.kill(guard.pid, signal.SIGCONT)


def ratio(with_guard: list[float], without: list[float]) -> dict[str, Any]:
    """Return the ratio of the sums, and its 95 % interval by resampling pairs."""
    pairs, draw = list(zip(with_guard, without, strict=True)), random.Random(1)
    drawn = []
    for _ in range(2000):
        some = draw.choices(pairs, k=len(pairs))
        drawn.append(sum(a for a, _ in some) / sum(b for _, b in some))
    drawn.sort()
    return {
        "with": round(statistics.mean(with_guard), 1),
        "without": round(statistics.mean(without), 1),
        "ratio": round(sum(with_guard) / sum(without), 4),
        "interval_95": [round(drawn[50], 4), round(drawn[-51], 4)],
        "all": [[round(a, 1), round(b, 1)] for a, b in pairs],
    }


def main() -> None:
    """Boot, deploy, load, watch, compare; print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("standin", "real"), default="standin")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--slice", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--name", default="soak")
    parser.add_argument("--there", action="store_true", help="that sandbox serves already: deploy nothing, leave it up")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    result: dict[str, Any] = {
        "date": date.today().isoformat(), "engine": given.engine, "cores": os.cpu_count(), "clients": given.clients,
        "python": "",
    }  # fmt: skip
    try:
        box = Sandbox.find(given.name) if given.there else Sandbox.up(given.name, 2)
        with tempfile.TemporaryDirectory() as directory:
            if not given.there:
                deploy(box, given.engine, Path(directory))
        head, init = box.hosts[0].address, {row.host.name: row.pid or 0 for row in box.status()}
        result["python"] = box.exec("node0", ["python3", "--version"]).stdout.split()[-1]
        result["vllm"] = json.loads(get(f"{head}:8000", "/version")[1])["version"]
        guards = [Guard(box, host.name, init[host.name]) for host in box.hosts]
        before = guard_answers.group_status(box, "node0", "kimi-k2-instruct")
        load = Load(head, given.clients, TOKENS[given.engine])
        time.sleep(10)
        if given.minutes:
            result["soak"] = soak(head, guards, given.minutes)
        if given.pairs:
            result["throughput"] = compare(head, guards, given.pairs, given.slice)
        load.end()
        after = guard_answers.group_status(box, "node0", "kimi-k2-instruct")
        result |= {
            "restarts": after["restarts"] - before["restarts"],
            "same_generation": after["generation"] == before["generation"],
            "requests": {"answered": load.answered, "failed": load.failed},
        }
    finally:
        if not given.there:
            Sandbox.named(given.name).down()
    what = "soak" if given.minutes else "throughput"
    place = ROOT / "benchmarks" / "results" / f"{result['date']}-guard-{what}-{given.engine}.json"
    place.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    print(f"kept in {place.relative_to(ROOT)}")
    if result["restarts"] or not result["same_generation"]:
        raise SystemExit("the guard restarted a group that was only busy")


if __name__ == "__main__":
    main()
