"""A head and a headless rank on real GPUs, under their own guards and under load: kill one, stop one, and watch.

    python tests/gpu/guarded.py --out FILE [--site SITE] [--case CASE] [--soak SECONDS] [--faults A,B] [--idle]
                                [--cold] [--shared SLOT] [--slot SLOT] [--gpus A,B] [--seconds S] [--env NAME=VALUE]…
                                [--set NAME=VALUE]… [--words "--flag value"] [--standby-after S]

Runs as root on a machine of your own with vLLM, as tests/gpu/run.py does: the plan's guard, guard.json and command
lines. With two GPUs each rank has its own (`dp-ep`), with four each host has two ranks (`dp-ep-4`); on one they share
it, with a dense model (`dp-shared`). `--set keep_weights=true` keeps the weights, by a unit
beside each host's own. Both hosts are this machine, so a restart loop stands in for systemd
(tests/gpu/guarded_host.py); the result says with what fence. FILE.json and FILE.md are written after every
fault; the guards' logs lie beside, and what benchmarks/start.py reads of every start. Each fault is a first failure:
the group is resumed before it. Two runs side by side on the same GPUs take `--shared 0` and `--shared 1`. Exit status 1
when a bound of the fault matrix or an oracle was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from muster.plan.make import build_plan  # noqa: E402
from muster.plan.types import Plan  # noqa: E402
from muster.spec import recipe as recipes  # noqa: E402
from tests.faults import sightings  # noqa: E402
from tests.faults.sampler import Sampler  # noqa: E402
from tests.gpu import guarded_table, model  # noqa: E402
from tests.gpu.cases import find  # noqa: E402
from tests.gpu.guarded_faults import FAULTS, Fault  # noqa: E402
from tests.gpu.guarded_host import STANDBY_AFTER, Host, hierarchy  # noqa: E402
from tests.gpu.guarded_watch import FREE_MIB, Gpus, HostProcesses, Load, Ready, complete, get  # noqa: E402
from tests.gpu.run import START_SECONDS, caches, install, machine, own_gpus, product, settings_of  # noqa: E402

CLIENTS, TOKENS = 64, 1500
"""Clients of each rank, and tokens of each of their answers."""
CRASH_SECONDS = 10.0
"""From the engine's own words of a dead worker to the end of its generation."""
LOAD_SECONDS = 12.0
"""Load before each fault."""
CASE_ON = {1: "dp-shared", 4: "dp-ep-4"}
"""What runs on so many GPUs, where it is not `dp-ep`."""


class Run:
    """A guarded group on this machine, and all that watches it."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        fence: Path | None,
        *,
        shared: bool = False,
        idle: bool = False,
        cold: bool = False,
        gpus: Sequence[str] = (),
        standby_after: float = STANDBY_AFTER,
    ) -> None:
        self.plan, self.folder, self.shared, self.idle, self.cold = plan, folder, shared, idle, cold
        head = plan.head
        guard_config = json.loads(head.files[f"/etc/muster/{plan.group}/guard.json"].text)
        self.settings = guard_config["settings"]
        self.control = f"http://{guard_config['head']['address']}:{guard_config['head']['control_port']}"
        self.gpus = Gpus()
        there = list(gpus) or [str(n) for n in range(len(self.gpus.idle))]
        self.hosts = [
            Host(plan, host, own_gpus(host, there), folder, fence, shared=shared, standby_after=standby_after)
            for host in plan.hosts.values()
        ]
        self.keepers = [
            Host(plan, host, own_gpus(host, there), folder, fence, keeper=True)
            for host in plan.hosts.values() if host.weights is not None
        ]  # fmt: skip
        """Units beside the hosts' own whose daemons keep the weights, where the plan has them kept."""
        self.processes = HostProcesses(self.hosts)
        self.ready = Ready(self.control)
        self.ranks = sorted(rank for host in plan.hosts.values() for rank in host.dp_ranks)
        self.loads: list[Load] = []

    def start(self, caches_were: str) -> float:
        """Start the guards, the headless one first; the seconds until /ready."""
        if self.cold:
            model.leave_page_cache(Path(self.plan.model))
        began = time.monotonic()
        watchers: list[Sampler] = [self.gpus, self.processes, self.ready]
        for watcher in watchers:
            watcher.start()
        for host in (*reversed(self.keepers), *reversed(self.hosts)):
            host.start()
        until(lambda: self.ready.now, START_SECONDS + 60, "the group is not ready", self.explain)
        self.keep_start(self.ready.changes[-1][0], caches_were)
        return self.ready.changes[-1][0] - began

    def keep_start(self, answered: float, caches_were: str) -> None:
        """Append what the last start logged, and when, for benchmarks/start.py."""
        lines = sorted((when, text) for host in self.hosts for when, text in host.engine if when <= answered)
        started = {
            "hosts": [host.host for host in self.hosts], "caches": caches_were, "answered": answered,
            "began": min(host.generation_began for host in self.hosts),
            "born": {each.pid: each.started for each in sightings.engines(self.processes.alive)}, "lines": lines,
        }  # fmt: skip
        with (self.folder / "starts.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(started) + "\n")

    def load(self) -> None:
        """Begin the load; it goes on through the faults."""
        self.loads = [
            Load(self.plan.local_endpoint, self.plan.served_model_name, rank, TOKENS)
            for rank in self.ranks for _ in range(CLIENTS)
        ]  # fmt: skip

    def crash(self, bound: float) -> dict[str, Any]:
        """Start an engine that dies while starting, all of its processes alive; when the guard ends it, and with what.

        Args:
            bound: seconds from the engine's own words to the end of all its processes.
        """
        watchers: list[Sampler] = [self.gpus, self.processes, self.ready]
        for watcher in (*watchers, *reversed(self.hosts)):
            watcher.start()
        host = self.hosts[0]
        until(lambda: bool(host.death), START_SECONDS, "the engine does not die", self.explain)
        alive = len(sightings.engines(self.processes.alive))

        def ended() -> list[tuple[float, str]]:
            return [(when, text) for when, text in host.lines if when >= host.death and text.startswith("ending:")]

        until(lambda: bool(ended()), bound + 60, "the guard does not end the generation", self.explain)
        at, words = ended()[0]
        until(lambda: self.gpus.free_at(at) is not None, 60, "the GPUs' memory is not back", self.explain)
        free = self.gpus.free_at(at)
        record = {
            "engine_processes_alive_at_the_words": alive, "words_to_end": round(at - host.death, 2), "bound": bound,
            "words_to_gpu_memory_free": None if free is None else round(free - host.death, 2), "guard": words,
            "failure": self._failure(),
        }  # fmt: skip
        record["missed"] = [f"{record['words_to_end']} s, bound {bound} s"] if at - host.death > bound else []
        return record

    def soak(self, seconds: float) -> dict[str, Any]:
        """Load and nothing else; what was answered, and what the guards cost meanwhile."""
        time.sleep(LOAD_SECONDS)
        began, before = time.monotonic(), {rank: self._answered(rank) for rank in self.ranks}
        ended = sum(len(host.statuses) for host in self.hosts)
        costs, lines = [host.cost() for host in self.hosts], [len(host.lines) for host in self.hosts]
        time.sleep(seconds)
        spent = time.monotonic() - began
        after = [host.cost() for host in self.hosts]
        answered = {str(rank): self._answered(rank) - before[rank] for rank in self.ranks}
        return {
            "seconds": round(spent, 1), "answered": answered,
            "output_tokens_per_s": round(sum(answered.values()) * TOKENS / spent),
            "failed": sum(len(load.failed) for load in self.loads),
            "restarts": sum(len(host.statuses) for host in self.hosts) - ended,
            "said": [text for host, count in zip(self.hosts, lines, strict=True) for _, text in host.lines[count:]],
            "guard_core_percent": [
                round(100 * (new[0] - old[0]) / spent, 2) for old, new in zip(costs, after, strict=True)
            ],
            "guard_mib": [round(new[1], 1) for new in after],
        }  # fmt: skip

    def carry_out(self, key: str) -> dict[str, Any]:
        """Do one fault under load, and say in seconds after it what happened when."""
        fault = FAULTS[key]
        self.hosts[0].ctl("resume")
        time.sleep(0 if self.idle else LOAD_SECONDS)
        until(lambda: all(self._busy(rank) for rank in self.ranks), 60, "no load", self.explain)
        until(lambda: all(host.waits for host in self.hosts), 120, "nothing stands by", self.explain)
        if self.cold:
            model.leave_page_cache(Path(self.plan.model))
        self.processes.forget()
        before = sightings.engines(self.processes.alive)
        (old,) = {each.generation for each in before}
        answered = {rank: self._answered(rank) for rank in self.ranks}
        used = self.gpus.used[-1][1]
        pid = fault.victim(self.hosts)
        at = time.monotonic()
        os.kill(pid, fault.number)
        record: dict[str, Any] = {
            "fault": key, "text": fault.text, "bounds": [fault.gone, fault.new], "in_flight": len(self.loads),
            "answered_before": answered, "used_mib": list(used),
        }  # fmt: skip

        def since(when: float | None) -> float | None:
            return None if when is None else round(when - at, 2)

        limit = fault.new + START_SECONDS + 60
        try:
            until(lambda: self._gone(old) is not None, fault.gone + 60, "the old processes are not gone", self.explain)
            if not self.shared and not self.keepers:
                until(lambda: self.gpus.free_at(at) is not None, 60, "the GPUs' memory is not back", self.explain)
            first = {rank: self._first_answer(rank, at + limit) for rank in self.ranks}
            until(lambda: self.ready.now, 120, "/ready does not answer 200", self.explain)
            record["answering"] = {str(rank): since(when) for rank, when in first.items()}
            self.keep_start(max(first.values()), "persisted")
        except TimeoutError as error:
            record["error"] = str(error)
        lines = [(when, host.host, text) for host in self.hosts for when, text in host.lines if when > at]
        lines.sort()
        names = [host.host for host in self.hosts]
        seen = self.processes.seen
        lost = [each for load in self.loads for each in load.failed if each[0] <= at <= each[1]]
        record |= {
            "detected": since(lines[0][0]) if lines else None, "detected_by": lines[0][1:] if lines else None,
            "ending": {name: since(_said(lines, name, "ending:")) for name in names},
            "all_gone": since(sightings.gone_at(seen, old)),
            "gpu_memory_free": since(self.gpus.free_at(at)),
            "new_generation": since(sightings.started_at(seen, old, names, at)),
            "unready": since(next((when for when, status in self.ready.changes if when > at and status != 200), None)),
            "ready": since(self.ready.changes[-1][0]) if self.ready.now else None,
            "lost": len(lost), "lost_after": since(max((each[1] for each in lost), default=None)),
            "lost_how": sorted({each[2] for each in lost}), "said": [[since(w), h, t] for w, h, t in lines[:40]],
        }  # fmt: skip
        record["failure"] = self._failure()
        if self.keepers:
            record["weights_loaded"] = [len(keeper.statuses) + 1 for keeper in self.keepers]
        record["oracles"] = {
            "no process kept": sightings.kept(before, sightings.engines(self.processes.alive)),
            "no two generations at once": sightings.overlaps(seen),
            "one generation afterwards": list(sightings.generations(self.processes.alive)),
        }
        record["missed"] = _missed(record, fault)
        return record

    def _gone(self, old: str) -> float | None:
        return sightings.gone_at(self.processes.seen, old)

    def _busy(self, rank: int) -> bool:
        return all(load.sent is not None for load in self.loads if load.rank == rank)

    def _answered(self, rank: int) -> int:
        return sum(load.answered for load in self.loads if load.rank == rank)

    def _first_answer(self, rank: int, deadline: float) -> float:
        problem = "never asked"
        while time.monotonic() < deadline:
            problem = complete(self.plan.local_endpoint, self.plan.served_model_name, rank, 8, 30)
            if not problem:
                return time.monotonic()
            time.sleep(0.3)
        raise TimeoutError(f"DP rank {rank} does not answer: {problem}")

    def _failure(self) -> dict[str, Any]:
        failures = (self.hosts[0].ctl("status").get("group") or {}).get("failures", [])
        return {key: failures[0].get(key) for key in ("host", "process", "reason")} if failures else {}

    def explain(self) -> str:
        """What to read when something did not come."""
        units = (*self.keepers, *self.hosts)
        lines = [get(self.control + "/ready")[1], *(f"{unit.folder.name}: {unit.last_words()}" for unit in units)]
        return "\n".join(lines)

    def end(self) -> None:
        """End everything that was started."""
        for load in self.loads:
            load.end()
        for host in (*self.hosts, *self.keepers):
            if host.is_alive():
                host.end()
        for watcher in (self.gpus, self.processes, self.ready):
            if watcher.is_alive():
                watcher.end()


def _said(lines: Sequence[tuple[float, str, str]], host: str, words: str) -> float | None:
    return next((when for when, who, text in lines if who == host and text.startswith(words)), None)


def _missed(record: dict[str, Any], fault: Fault) -> list[str]:
    missed = [record["error"]] if "error" in record else []
    for key, bound in (("all_gone", fault.gone), ("new_generation", fault.new)):
        if record[key] is None or record[key] > bound:
            missed.append(f"{key}: {record[key]} s, bound {bound} s")
    oracles = record["oracles"]
    missed += [*oracles["no process kept"], *oracles["no two generations at once"]]
    if len(oracles["one generation afterwards"]) != 1:
        missed.append(f"generations afterwards: {oracles['one generation afterwards']}")
    return missed


def until(what: Callable[[], bool], seconds: float, problem: str, explain: Callable[[], str]) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it did not within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            print(explain(), file=sys.stderr, flush=True)
            raise TimeoutError(f"{problem} within {seconds:g} s")
        time.sleep(0.05)


def main() -> int:
    """Start the group, carry out the faults, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="FILE: FILE.json and FILE.md are written")
    parser.add_argument("--site", default="")
    parser.add_argument("--soak", type=float, default=0, help="seconds of load before the first fault")
    parser.add_argument("--faults", default="kill-headless,stop-core")
    parser.add_argument("--case", help="one of tests/gpu/cases.py; by default the one for this number of GPUs")
    parser.add_argument("--idle", action="store_true", help="no load")
    parser.add_argument("--shared", type=int, metavar="SLOT", help="another run has another slot and the same GPUs")
    parser.add_argument("--slot", type=int, default=0, help="keeps the ports of runs side by side apart")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no fault begins later than this")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="of the engine")
    parser.add_argument("--crash", metavar="CASE", help="no faults: a case whose engine dies while it starts")
    parser.add_argument("--gpus", default="", metavar="A,B", help="the group has these GPUs of the machine alone")
    parser.add_argument("--cold", action="store_true", help="the model's files leave the page cache before each fault")
    parser.add_argument("--keep-caches", action="store_true", help="start with what earlier starts compiled")
    parser.add_argument("--fence", choices=("auto", "environment"), default="auto")
    parser.add_argument("--standby-after", type=float, default=STANDBY_AFTER, metavar="S", help="as standby_after")
    parser.add_argument("--words", default="", help="further words for vllm serve")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the plan")
    args = parser.parse_args()
    ends = time.monotonic() + args.seconds
    install(args.site)
    on = machine()
    case = find(args.crash or args.case or CASE_ON.get(int(on["gpus"].partition("x")[0]), "dp-ep"))
    case = replace(case, args=(*case.args, *shlex.split(args.words)))
    changes = {name: json.loads(value) for name, value in (pair.split("=", 1) for pair in args.set)}
    settings = settings_of(case, site=args.site, slot=args.shared or args.slot)
    if args.env:
        changes["extra_env"] = {**settings.extra_env, **dict(pair.split("=", 1) for pair in args.env)}
    plan = build_plan(
        recipes.load(case.recipe),
        case.specs(product()),
        settings.model_validate({**dict(settings), "supervisor": "guard", **changes}),
    )
    caches(plan, empty=not args.keep_caches)
    folder = args.out.parent / f"{args.out.name}-hosts"
    shutil.rmtree(folder, ignore_errors=True)
    fence = hierarchy() if args.fence == "auto" else None
    gpus = list(filter(None, args.gpus.split(",")))
    how = {"shared": args.shared is not None, "idle": args.idle, "cold": args.cold}
    run = Run(plan, folder, fence, **how, gpus=gpus, standby_after=args.standby_after)
    record: dict[str, Any] = {
        "machine": on, "case": case.name, "label": plan.label, "digest": plan.digest,
        "weights": f"{case.weights if case.weights != 'none' else 'dummy'}{', kept by daemons' * bool(run.keepers)}",
        "supervisor": f"a guard per host on one machine, each under a restart loop in place of systemd (again after"
        f" {run.hosts[0].restart_seconds:g} s); fence: "
        f"{'a control group each' if fence else 'marks in the environment'}",
        "settings": run.settings, "clients_per_rank": 0 if args.idle else CLIENTS,
        "beside_another_group": args.shared is not None, "tokens": TOKENS, "free_means_mib_above_idle": FREE_MIB,
        "idle_mib": list(run.gpus.idle), "faults": [],
        "argv": {
            f"{host.name}:{p.name}": list(p.argv)
            for host in plan.hosts.values() for p in (*host.processes, *([host.weights] if host.weights else []))
        },
    }  # fmt: skip

    def keep() -> None:
        args.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        args.out.with_suffix(".md").write_text(guarded_table.markdown(record), encoding="utf-8")

    try:
        if args.crash:
            record["crash"] = run.crash(CRASH_SECONDS)
            print(record["crash"], flush=True)
            return bool(record["crash"]["missed"])
        record["first_start_seconds"] = round(run.start("persisted" if args.keep_caches else "empty"), 1)
        if not args.idle:
            run.load()
        if args.soak:
            record["soak"] = run.soak(args.soak)
            keep()
            print(record["soak"], flush=True)
        for key in args.faults.split(","):
            if time.monotonic() > ends:
                break
            record["faults"].append(run.carry_out(key))
            keep()
            print(guarded_table.row(record["faults"][-1]), *record["faults"][-1]["missed"], sep="\n", flush=True)
    except TimeoutError as error:
        record["error"] = str(error)
        print(error, flush=True)
    finally:
        run.end()
        keep()
    return 1 if "error" in record or any(fault["missed"] for fault in record["faults"]) else 0


if __name__ == "__main__":
    sys.exit(main())
