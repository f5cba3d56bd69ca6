"""The literal command with the real vLLM, its parser on every planned command, and its recovery from real faults."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from muster.sandbox import vllm_wheel
from tests.engine import commands
from tests.engine.conftest import RANKS, UNIT, Real

pytestmark = [pytest.mark.sandbox, pytest.mark.engine]

RECOVERY = 420.0
"""Seconds; a model load on two CPU cores takes 50 to 130 s, and a busy machine more."""


def test_every_rank_answers_after_the_first_run(real: Real) -> None:
    assert [real.complete(rank) for rank in RANKS] == ["length", "length"]
    assert real.ready()


def test_a_second_run_changes_nothing_and_opens_few_sessions(real: Real) -> None:
    cursors = {host.name: real.box.journal_cursor(host.name) for host in real.box.hosts}
    again = real.deploy()
    assert again.returncode == 0, again.stdout + again.stderr
    (total,) = re.findall(r"Grand total +(\d+) +(\S+) +(\S+) +(\d+)", again.stdout + again.stderr)
    assert total[1:3] == ("-", "-"), again.stdout
    for name, cursor in cursors.items():
        assert len(real.box.ssh_sessions(name, since=cursor)) <= 7  # 6, and one for verify


ASK = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
for case, argv in json.load(sys.stdin):
    try:
        parser.parse_args(argv[2:])
        print("took", case)
    except SystemExit:
        print("refused", case)
"""


def read_by_the_parser(real: Real, cases: Iterable[tuple[str, tuple[str, ...]]], timeout: int) -> list[tuple[str, str]]:
    """Have the installed parser read command lines; return verdict and case of each."""
    release = real.box.exec("node0", ["/bin/sh", "-c", "ls -d /opt/muster/engines/*/bin"]).stdout.split()[0]
    given = json.dumps(list(cases))
    answer = real.box.exec("node0", [f"{release}/python", "-c", ASK], stdin=given, timeout=timeout).stdout
    said = [line.partition(" ") for line in answer.splitlines() if line.startswith(("took ", "refused "))]
    return [(verdict, case) for verdict, _, case in said]


def test_the_real_parser_takes_every_recipe_strategy_and_hardware(real: Real) -> None:
    cases = commands.shipped(vllm_wheel.VLLM)  # the one that is asked
    assert len(cases) == 55
    cases += commands.imported(vllm_wheel.VLLM)
    said = read_by_the_parser(real, cases, 300)
    assert len(said) == len(cases) == 55 + 36 + 194
    assert [case for verdict, case in said if verdict == "refused"] == []


@pytest.mark.nightly
def test_the_real_parser_takes_every_command_of_the_catalogue(real: Real) -> None:
    cases = commands.catalogue()
    assert len(cases) > 1000
    said = read_by_the_parser(real, cases, 900)
    assert len(said) == len(cases)
    assert [case for verdict, case in said if verdict == "refused"] == []


def test_what_only_the_engine_can_refuse_stops_nothing(real: Real) -> None:
    words = ["--enforce-eager", "--load-format", "dummy", "--dtype", "bfloat16"]
    refused = {
        "max_model_len=4096": "greater than the derived max_model_len",
        f"extra_args={json.dumps([*words, '--reasoning-parser', 'nosuch'])}": "--reasoning-parser nosuch: this vLLM",
    }
    generation, over, ends = real.status()["generation"], threading.Event(), list[str]()

    def ask() -> None:
        while not over.is_set():
            ends.append(real.complete(0))
            over.wait(5)  # an engine that has just been asked keeps its cores busy for a second

    client = threading.Thread(target=ask)
    client.start()
    try:
        for setting, says in refused.items():
            ran = real.deploy("--data", setting)
            assert ran.returncode != 0, setting
            assert says in ran.stdout + ran.stderr
            assert "the running group was not touched" in ran.stdout + ran.stderr
    finally:
        over.set()
        client.join()
    assert ends
    assert set(ends) <= {"length", "stop"}, "a request was not answered while a change was refused"
    assert real.status()["generation"] == generation


def recover(real: Real, before: dict[str, object]) -> None:
    generation = before["generation"]
    real.wait("a new generation", lambda: real.status().get("generation") not in (None, generation), RECOVERY)
    real.wait("every rank answers the guard", real.ready, RECOVERY)
    assert [real.complete(rank) for rank in RANKS] == ["length", "length"]


@pytest.mark.parametrize("host", [pytest.param("node0", marks=pytest.mark.nightly), "node1"])
def test_a_killed_rank_restarts_the_whole_group(real: Real, host: str) -> None:
    before = real.status()
    old = {name: set(real.pids(name)) for name in ("node0", "node1")}
    (victim,) = [pid for pid, line in real.pids(host).items() if " serve " in line][:1]
    real.box.exec(host, ["kill", "-KILL", str(victim)])
    recover(real, before)
    for name, pids in old.items():
        assert not pids & set(real.pids(name)), f"{name}: processes of the old generation live on"
    assert "SIGKILL" in json.dumps(real.status()["failures"])


def running(real: Real) -> float:
    """Return how many requests the engine has in hand; none where it is too busy to say."""
    try:
        with urllib.request.urlopen(real.request("/metrics"), timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:num_requests_running"))


@pytest.mark.nightly
def test_a_stop_answers_what_is_in_flight(real: Real) -> None:
    asked = [rank for rank in RANKS for _ in range(4)]  # all of it takes some ten seconds; drain_seconds is 30
    with ThreadPoolExecutor(len(asked)) as pool:
        long = [pool.submit(real.complete, rank, 300, tokens=400, ignore_eos=True) for rank in asked]
        real.wait("requests in hand", lambda: running(real) >= len(RANKS), 120)
        stopped = real.run("pyinfra", "-y", "inventories/sandbox.py", "deploys/stop.py")
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        assert [one.result() for one in long] == ["length"] * len(asked)
    assert real.status()["phase"] == "stopped"
    left = {line for name in ("node0", "node1") for line in real.pids(name).values()}
    assert all("journalctl" in line for line in left), left  # the guard's own, which reads the kernel's log
    resumed = real.run("pyinfra", "-y", "inventories/sandbox.py", "deploys/resume.py")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert [real.complete(rank) for rank in RANKS] == ["length", "length"]


@pytest.mark.nightly
def test_a_stopped_engine_core_is_found_while_health_says_200(real: Real) -> None:
    before = real.status()
    (core,) = [pid for pid, line in real.pids("node1").items() if "EngineCore" in line][:1]
    real.box.exec("node1", ["kill", "-STOP", str(core)])
    recover(real, before)


@pytest.mark.nightly
@pytest.mark.parametrize("host", ["node1", "node0"])
def test_a_rebooted_host_comes_back_by_itself(real: Real, host: str) -> None:
    before = real.status()
    real.box.reboot(host)
    recover(real, before)
    assert real.box.exec(host, ["systemctl", "is-active", UNIT]).stdout.strip() == "active"
