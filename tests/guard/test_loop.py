"""Real guards, real sockets, real processes: what dies is noticed, all of it goes, and one new generation comes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cached_files import files_of, forget

from .loopback import API_KEY, FAST, KEY, Cluster, wait_for

pytestmark = pytest.mark.slow
# The rest of what real guards do to each other; what is without this mark is enough to see that they do it.
nightly = pytest.mark.nightly

Make = Callable[..., Cluster]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Cluster] = []

    def build(size: int, start: bool = True, **changes: Any) -> Cluster:
        cluster = Cluster(tmp_path, size, **changes)
        made.append(cluster)
        if start:
            cluster.start()
        return cluster

    yield build
    for cluster in made:
        cluster.end()


def pythons() -> list[str]:
    """Every Python from 3.9 to 3.13 in PATH, and those that MUSTER_PYTHONS names (separated by colons)."""
    names = [shutil.which(f"python3.{minor}") for minor in range(9, 14)]
    paths = set()
    for path in [*names, *os.environ.get("MUSTER_PYTHONS", "").split(":")]:
        if path:
            ask = [path, "-c", "import asyncio, sys; print(sys.executable, *sys.version_info[:2])"]
            works = subprocess.run(ask, capture_output=True, text=True)
            if works.returncode == 0:
                paths.add(works.stdout.split()[0])
    return sorted(paths)


def recovered(cluster: Cluster, before: dict[str, list[tuple[int, str]]]) -> dict[str, Any]:
    """The oracles: a new generation, every process new, none of the old alive when the first of the new began."""
    old = {generation for pairs in before.values() for _, generation in pairs}
    wait_for(lambda: not old & cluster.generations())
    status = cluster.ready()
    alive = wait_for(lambda: all(len(pairs) == 2 for pairs in cluster.alive().values()) and cluster.alive())
    assert cluster.generations() == {status["generation"]}
    for host in cluster.hosts:
        assert not {pid for pid, _ in before[host]} & {pid for pid, _ in alive[host]}
        assert "Traceback" not in cluster.log(host)
    return status


def running(cluster: Cluster) -> dict[str, list[tuple[int, str]]]:
    cluster.ready()
    return wait_for(lambda: all(len(pairs) == 2 for pairs in cluster.alive().values()) and cluster.alive())


@pytest.mark.parametrize("size", [pytest.param(1, marks=nightly), pytest.param(2, marks=nightly), 3])
def test_a_group_comes_up(make: Make, size: int) -> None:
    cluster = make(size)
    before = running(cluster)
    status = cluster.group()
    assert status["phase"] == "running"
    assert status["ready"] is True
    assert [member["child"] for member in status["members"]] == ["running"] * size
    assert [engine["dp_rank"] for engine in status["engines"]] == list(range(size))
    assert status["restarts"] == 0
    assert {pid for pairs in before.values() for pid, _ in pairs} == {
        pid for pairs in cluster.alive().values() for pid, _ in pairs
    }
    assert "muster_ready{" in cluster.get("/metrics")[1]
    assert cluster.get("/nothing")[0] == 404


@nightly
@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).parents[1].name)
def test_every_host_python_runs_the_guard(make: Make, python: str) -> None:
    cluster = make(2, python=python)
    before = running(cluster)
    os.kill(cluster.child("h1"), signal.SIGKILL)
    recovered(cluster, before)


@pytest.mark.parametrize("host", [pytest.param("h0", marks=nightly), "h1", pytest.param("h2", marks=nightly)])
def test_a_killed_child_restarts_the_group(make: Make, host: str) -> None:
    cluster = make(3)
    before = running(cluster)
    os.kill(cluster.child(host), signal.SIGKILL)
    status = recovered(cluster, before)
    failure = status["failures"][0]
    assert (failure["host"], failure["process"], failure["reason"]) == (host, "vllm", "vllm was killed by SIGKILL")
    assert "lines" not in failure
    failure = cluster.ctl("h0", "status")["group"]["failures"][0]
    assert f"{host} child started" in failure["lines"]
    assert status["restarts"] == 1
    (bundle,) = cluster.ctl(host, "logs")["bundles"]
    assert bundle["reason"].endswith("vllm was killed by SIGKILL")
    assert f"{host} child started" in bundle["processes"][0]["lines"]


def test_a_process_that_stands_by_is_the_next_engine(make: Make) -> None:
    """Twice in a row, on every host; and it goes with its guard."""
    stands_by = {"processes": [{"name": "vllm", "env": {}, "standby": ["json"]}]}
    cluster = make(2, **stands_by, settings={**FAST, "standby_after": 0.5})
    held: list[list[int]] = []
    for restarts in (1, 2):
        before = running(cluster)
        held.append([pipes(cluster.guard(host)) for host in cluster.hosts])
        waiting = wait_for(lambda times=restarts: standing_by(cluster, times))
        os.kill(cluster.child("h1"), signal.SIGKILL)
        assert recovered(cluster, before)["restarts"] == restarts
        assert {host: cluster.child(host) for host in cluster.hosts} == waiting
    assert held[0] == held[1], "a guard that goes on keeps nothing open of the generation before"
    assert [(unit.starts, unit.statuses) for unit in cluster.units.values()] == [(1, []), (1, [])]
    waiting = wait_for(lambda: standing_by(cluster, 3))
    before = cluster.alive()
    cluster.units["h1"].signal(signal.SIGKILL)
    recovered(cluster, before)
    wait_for(lambda: not Path(f"/proc/{waiting['h1']}").exists())
    assert cluster.child("h0") == waiting["h0"]
    assert cluster.units["h1"].starts == 2


def test_a_group_loads_by_what_its_hosts_have_measured_at_each_start(make: Make, tmp_path: Path) -> None:
    """With processes that stand by, too: they hear of the loader when they are told to go on."""
    weights = tmp_path / "rev"
    weights.mkdir()
    record = tmp_path / "rev.loaders.json"

    def measure(**rates: int) -> None:
        loaders = {name: {"rate": rate, "peak": 0} for name, rate in {"auto": 10, **rates}.items()}
        draft = tmp_path / "draft"
        draft.write_text(
            json.dumps({"engine": "0.32.0", "ranks": "r", "device": weights.stat().st_dev, "loaders": loaders})
        )
        draft.replace(record)

    def loaders() -> list[str]:
        found = [json.loads(path.read_text()) for path in cluster.work.glob("*-child-*.json")]
        return [each["loader"] for each in found if {each["generation"]} == cluster.generations()]

    measure(instanttensor=50)
    names = ["instanttensor", "fastsafetensors"]
    loading = {"record": str(record), "mapped": 1000, "whole": 1000, "room": 0, "names": names, "process": "vllm"}
    loading["ranks"] = "r"
    processes = [{"name": "vllm", "env": {}, "standby": ["json"]}]
    cluster = make(2, loading=loading, processes=processes, settings={**FAST, "standby_after": 0.5})
    before = running(cluster)
    assert (cluster.group()["loader"], loaders()) == ("instanttensor", ["instanttensor"] * 2)
    assert "weights are loaded by instanttensor: 20 s expected, auto 100 s" in cluster.log("h0")
    waiting = wait_for(lambda: standing_by(cluster, 1))
    measure(instanttensor=50, fastsafetensors=100)
    assert cluster.group()["loader"] == "instanttensor", "a measurement restarts nothing"
    (cluster.work / "loading").touch()
    os.kill(cluster.child("h1"), signal.SIGKILL)
    wait_for(lambda: loaders() == ["fastsafetensors"] * 2)
    assert {host: cluster.child(host) for host in cluster.hosts} == waiting
    (cluster.work / "h1.dead").touch()
    wait_for(lambda: "fastsafetensors is not taken again" in cluster.log("h0"))
    (cluster.work / "loading").unlink()
    assert recovered(cluster, before)["loader"] == "instanttensor"
    assert loaders() == ["instanttensor"] * 2


def test_what_reads_weights_back_is_no_part_of_the_engine(make: Make, tmp_path: Path) -> None:
    """Its death ends nothing, the end of a generation does not wait for it, and it goes with its guard."""
    (weights,) = files_of(tmp_path / "weights", 8 << 20)
    forget(weights)
    cluster = make(
        1, start=False, page_cache={"directory": str(tmp_path / "weights")}, settings={**FAST, "standby_after": 0.5}
    )
    program = cluster.package / "guard" / "page_cache_program.py"
    # It reads for years.
    program.write_text(
        re.sub("\n_SLEEP = .*", "\n_SLEEP = 0", program.read_text().replace("\nREST = 1.0", "\nREST = 1e9"))
    )
    (cluster.work / "says-loaded").touch()
    cluster.start()
    before = running(cluster)
    (first,) = wait_for(lambda: readers(cluster))
    wait_for(lambda: "page cache: 0.0 GB of 0.0 GB of weights are there, the rest is read" in cluster.log("h0"))
    assert b"MUSTER_GENERATION" not in Path(f"/proc/{first}/environ").read_bytes()
    assert os.getpriority(os.PRIO_PROCESS, first) == 19
    forget(weights)
    os.kill(cluster.child("h0"), signal.SIGKILL)
    assert recovered(cluster, before)["restarts"] == 1
    wait_for(lambda: cluster.log("h0").count("the rest is read") == 2)
    (second,) = readers(cluster)
    assert not Path(f"/proc/{first}").exists()
    before = cluster.alive()
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: "page cache: the program that reads weights was killed by SIGKILL" in cluster.log("h0"))
    assert running(cluster) == before
    assert cluster.group()["restarts"] == 1
    forget(weights)
    cluster.units["h0"].signal(signal.SIGKILL)
    recovered(cluster, before)
    wait_for(lambda: cluster.log("h0").count("the rest is read") == 3)
    (third,) = readers(cluster)
    cluster.units["h0"].signal(signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{third}").exists())


def readers(cluster: Cluster) -> list[int]:
    """The processes that bring the cluster's weights back into the page cache."""
    program = str(cluster.package / "guard" / "page_cache_program.py").encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and program in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def pipes(pid: int) -> int:
    """How many pipes a process holds: the outputs of its children."""
    held = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    return sum(str(what).startswith("pipe:") for what in held)


def standing_by(cluster: Cluster, times: int) -> dict[str, int]:
    """Host to the process that its guard keeps for the next generation, once each has named so many."""
    named = {host: re.findall(r"process (\d+) stands by", cluster.log(host)) for host in cluster.hosts}
    whole = all(len(pids) == times for pids in named.values())
    return {host: int(pids[-1]) for host, pids in named.items()} if whole else {}


@pytest.mark.parametrize("host", ["h0", pytest.param("h1", marks=nightly)])
def test_a_killed_guard_restarts_the_group(make: Make, host: str) -> None:
    cluster = make(2)
    before = running(cluster)
    cluster.units[host].signal(signal.SIGKILL)
    status = recovered(cluster, before)
    assert status["failures"][0]["host"] == host
    assert status["restarts"] == 1


@nightly
@pytest.mark.parametrize("host", ["h0", "h1"])
def test_a_stopped_guard_is_left_behind_and_comes_back(make: Make, host: str) -> None:
    """Here nobody's watchdog kills it: once continued, it finds its generation outdated and restarts."""
    cluster = make(2)
    before = running(cluster)
    other = "h1" if host == "h0" else "h0"
    cluster.units[host].signal(signal.SIGSTOP)
    wait_for(lambda: not cluster.alive()[other])
    cluster.units[host].signal(signal.SIGCONT)
    recovered(cluster, before)


def test_a_hanging_rank_is_found_while_health_stays_200(make: Make, tmp_path: Path) -> None:
    """What the engine's watchdog has dumped by then is in the failure's bundle, and gone for the next generation."""
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    cluster = make(2, stack_directory=str(stacks))
    before = running(cluster)
    (stacks / "worker_1.log").write_text("Thread 0x1: in all_reduce")
    (cluster.work / "hang").write_text("1")
    wait_for(lambda: cluster.get("/ready")[0] != 200)
    wait_for(lambda: not {pid for pid, _ in before["h1"]} & {pid for pid, _ in cluster.alive()["h1"]})
    (cluster.work / "hang").unlink()
    status = recovered(cluster, before)
    assert status["failures"][0]["reason"] == ("DP rank 1 did not answer 2 canaries, the last one: no answer in 4 s")
    assert cluster.ctl("h0", "logs")["bundles"][0]["stacks"] == {"worker_1.log": "Thread 0x1: in all_reduce"}
    assert not list(stacks.iterdir())


@pytest.mark.parametrize("starting", [True, pytest.param(False, marks=nightly)])
def test_a_worker_dead_by_its_engines_words_ends_the_generation(make: Make, starting: bool) -> None:
    """All processes stay alive and nothing is asked of the rank; the words alone must do it."""
    cluster = make(2, settings={**FAST, "canary_idle": 1000.0, "stall_timeout": 1000.0}, start=False)
    if starting:
        (cluster.work / "loading").touch()
    cluster.start()
    wait_for(lambda: cluster.group().get("phase") == ("starting" if starting else "running"))
    before = wait_for(lambda: all(len(pairs) == 2 for pairs in cluster.alive().values()) and cluster.alive())
    (cluster.work / "h1.dead").touch()
    wait_for(lambda: not {pid for pid, _ in before["h0"]} & {pid for pid, _ in cluster.alive()["h0"]}, 15)
    (cluster.work / "loading").unlink(missing_ok=True)
    failure = recovered(cluster, before)["failures"][0]
    reason = "EngineCore: Worker proc VllmWorker-1 died unexpectedly"
    assert (failure["host"], failure["process"], failure["reason"]) == ("h1", "vllm", reason)
    lines = cluster.ctl("h0", "status")["group"]["failures"][0]["lines"]
    assert "\n(EngineCore pid=" in lines, "people read the record without its mark"


@nightly
def test_the_budget_ends_it_and_resume_starts_again(make: Make) -> None:
    cluster = make(2)
    for _ in range(7):
        cluster.ready()
        os.kill(cluster.child("h1"), signal.SIGKILL)
        wait_for(lambda: cluster.get("/ready")[0] != 200)
    assert wait_for(lambda: cluster.group().get("phase") == "failed" and cluster.group())["restarts"] == 7
    wait_for(lambda: not any(cluster.alive().values()))
    assert cluster.ctl("h1", "resume", "--wait", "30")["answer"]
    assert cluster.ready()["restarts"] == 7


@nightly
def test_stop_drains_and_holds_until_resume(make: Make) -> None:
    cluster = make(2)
    before = running(cluster)
    assert "answer" in cluster.ctl("h0", "stop", "--wait", "30")
    status = cluster.group()
    assert (status["phase"], status["restarts"]) == ("stopped", 0)
    assert not any(cluster.alive().values())
    cluster.units["h0"].signal(signal.SIGKILL)
    assert wait_for(lambda: cluster.units["h0"].starts > 2 and cluster.group())["phase"] == "stopped"
    assert "answer" in cluster.ctl("h0", "resume", "--wait", "30")
    recovered(cluster, before)
    assert cluster.ctl("h0", "logs")["bundles"] == []


@nightly
def test_restart_costs_no_budget(make: Make) -> None:
    cluster = make(2)
    before = running(cluster)
    assert "answer" in cluster.ctl("h1", "restart", "--wait", "30")
    assert recovered(cluster, before)["restarts"] == 0


@nightly
def test_stopping_a_unit_takes_the_group_down_in_order(make: Make) -> None:
    cluster = make(2)
    before = running(cluster)
    cluster.units["h1"].signal(signal.SIGTERM)
    status = recovered(cluster, before)
    assert status["restarts"] == 0
    assert cluster.units["h1"].statuses == [0]


def test_head_last(make: Make) -> None:
    cluster = make(3, start=False)
    cluster.start("h2", "h1")
    wait_for(lambda: "link_problem" in cluster.ctl("h1", "status"))
    assert not any(cluster.alive().values())
    cluster.start("h0")
    cluster.ready()


def test_mixed_plans_never_start_and_are_named(make: Make) -> None:
    cluster = make(2, start=False)
    cluster.configure("h1", digest="plan-2")
    cluster.start()
    reason = "h1 carries plan plan-2, the head h0 carries plan-1; run the deploy on every host"
    wait_for(lambda: any(member.get("lacks") == reason for member in cluster.group().get("members", [])))
    assert cluster.ctl("h1", "status")["member"]["head_reason"] == reason
    assert not any(cluster.alive().values())
    cluster.configure("h1")
    cluster.ready()


@nightly
def test_a_member_of_another_group_is_refused_by_name(make: Make) -> None:
    cluster = make(2, start=False)
    cluster.configure("h1", group="other")
    cluster.start()
    refusal = "the head refused: this is the head of group g, not of other"
    wait_for(lambda: cluster.ctl("h1", "status").get("link_problem") == refusal)


@nightly
def test_a_blocked_host_says_why(make: Make) -> None:
    missing = "/nonexistent/stamp"
    cluster = make(2, checks={"paths": [missing]})
    want = f"blocked: {missing} is missing; run the deploy to install the engine and stage the weights"
    wait_for(lambda: [member.get("lacks") for member in cluster.group().get("members", [])] == [want, want])
    assert cluster.get("/ready")[0] == 503


@nightly
def test_a_full_disk_restarts_nothing(make: Make) -> None:
    """Neither directory can be written: the group runs, and recovers, without a memory."""
    cluster = make(2)
    before = running(cluster)
    for host in cluster.hosts:
        for kind in ("run", "state"):
            shutil.rmtree(cluster.folder / host / kind)
    os.kill(cluster.child("h1"), signal.SIGKILL)
    recovered(cluster, before)


@nightly
def test_a_fatal_xid_blocks_its_host_until_resumed(make: Make) -> None:
    cluster = make(2, start=False)
    log = cluster.folder / "kernel.log"
    log.write_text("[1.0] NVRM: Xid (PCI:0000:9b:00): 13, a user's own fault\n")
    cluster.configure("h1", kernel_log=["tail", "-n", "+1", "-f", str(log)])
    cluster.start()
    running(cluster)
    line = "[99.0] NVRM: Xid (PCI:0000:9b:00): 79, pid=1, GPU has fallen off the bus."
    with log.open("a") as file:
        file.write(line + "\n")
    wait_for(lambda: not any(cluster.alive().values()))
    want = f"blocked: fatal Xid: {line}; reboot the host; if it comes back, have the GPU replaced"
    wait_for(lambda: cluster.group() and cluster.group()["members"][1]["lacks"] == want)
    assert cluster.group()["failures"][0]["reason"] == f"fatal Xid: {line}"
    cluster.ctl("h1", "resume", "--wait", "30")
    cluster.ready()


@nightly
def test_no_secret_shows(make: Make) -> None:
    cluster = make(2)
    before = running(cluster)
    seen = [cluster.get(path, token)[1] for path in ("/ready", "/status", "/metrics") for token in ("", API_KEY)]
    seen += [str(cluster.ctl(host, "status")) for host in cluster.hosts]
    os.kill(cluster.child("h1"), signal.SIGKILL)
    recovered(cluster, before)
    seen += [str(cluster.ctl(host, "logs")) for host in cluster.hosts] + [cluster.log(host) for host in cluster.hosts]
    for host in cluster.hosts:
        process = cluster.units[host].process
        assert process is not None
        seen.append(Path(f"/proc/{process.pid}/cmdline").read_text())
        seen.append(Path(f"/proc/{cluster.child(host)}/cmdline").read_text())
    assert not [text for text in seen if KEY in text or API_KEY in text]
