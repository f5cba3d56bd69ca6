"""The oracles of the fault matrix can fail: each is shown what it must not let pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults import matrix
from tests.faults.effects import EFFECTS
from tests.faults.matrix import FAIL, MATRIX, NOT_RUN, PASS, Outcome, by_key, cells, markdown, misses, verdict
from tests.faults.scenes import SCENES
from tests.faults.sightings import Sighting, generations, gone_at, kept, lives, overlaps, started_at

HOSTS = ("node0", "node1")
GUARD = "/usr/bin/python3 -I /opt/muster/guard/0a1b --config /etc/muster/g/guard.json -- vllm serve"


def seen(host: str, pid: int, generation: str, started: float, last: float, *, ended: float | None = None) -> Sighting:
    return Sighting(
        host, pid, int(started * 100), generation, f"i-{host}-{generation}", "vllm serve", started, last, ended
    )


OLD = [seen("node0", 10, "a", 1.0, 50.0, ended=50.1), seen("node1", 11, "a", 1.5, 52.0, ended=52.2)]
NEW = [seen("node0", 20, "b", 60.0, 99.0), seen("node1", 21, "b", 60.5, 99.0)]


def test_a_recovery_has_its_times() -> None:
    everything = [*OLD, *NEW]
    assert gone_at(everything, "a") == 52.2
    assert gone_at(everything, "a", "node0") == 50.1
    assert started_at(everything, "a", HOSTS, 49.0) == 60.5
    assert lives(everything, 49.0) == ["b"]
    assert overlaps(everything) == []
    assert kept(OLD, NEW) == []
    assert generations(NEW) == {"b": 2}


def test_what_lives_on_is_not_gone() -> None:
    assert gone_at([OLD[0], replace(OLD[1], ended=None), *NEW], "a") is None
    assert gone_at(NEW, "a") is None


def test_a_generation_on_one_host_alone_has_not_started() -> None:
    assert started_at([*OLD, NEW[0]], "a", HOSTS, 49.0) is None
    torn = [NEW[0], replace(NEW[1], generation="c")]
    assert started_at(torn, "a", HOSTS, 49.0) is None
    assert lives(torn, 49.0) == ["b", "c"]


def test_an_orphan_beside_the_new_generation_is_an_overlap() -> None:
    (found,) = overlaps([OLD[0], replace(OLD[1], last=60.2), *NEW])
    assert found == "node1: vllm serve of generation a lived 0.20 s into vllm serve of b on node0"
    assert len(overlaps([replace(OLD[0], last=70.0), *NEW])) == 2


def test_a_process_that_stood_by_goes_on_as_the_engine() -> None:
    guard = replace(seen("node0", 9, "", 0.0, 99.0), title=GUARD, instance="")
    waits = replace(
        seen("node0", 20, "", 30.0, 59.0), title="python /opt/muster/guard/0a1b/guard/standby_program.py 4 m vllm"
    )
    now = replace(waits, generation="b", instance="i-b", started=60.0, last=99.0)
    assert waits.stands_by
    assert not now.stands_by
    assert kept([*OLD, guard, waits], [guard, now, NEW[1]]) == []
    assert overlaps([*OLD, waits, now, NEW[1]]) == []
    assert kept([*OLD, guard], [guard, now, NEW[1]]) == [f"node0: process 9 {GUARD[:40]}"]
    assert kept([*OLD, guard, waits], [OLD[0], now]) == ["node0: process 10 vllm serve", "instance i-node0-a"]


def test_the_guard_belongs_to_no_generation() -> None:
    guard = replace(seen("node0", 9, "", 0.0, 99.0), title=GUARD)
    assert guard.is_guard
    assert overlaps([guard, *OLD, *NEW]) == []
    assert generations([guard]) == {}
    assert not replace(guard, generation="a").is_guard


def test_a_process_or_an_instance_that_stays_is_named() -> None:
    assert kept(OLD, [OLD[1], *NEW]) == ["node1: process 11 vllm serve", "instance i-node1-a"]
    again = replace(NEW[0], instance=OLD[0].instance)
    assert kept(OLD, [again]) == ["instance i-node0-a"]
    # The same number, taken again by another process.
    assert kept(OLD, [replace(NEW[0], pid=10)]) == []


GOOD = Outcome("kill-head", 0.1, 4.0, None, 20.0, 30.0, dict.fromkeys(matrix.ORACLES, ""))


def test_a_row_passes_only_within_its_bounds_and_with_every_oracle() -> None:
    assert (verdict(GOOD), misses(GOOD)) == (PASS, [])
    assert misses(replace(GOOD, gone=10.1)) == ["gone after 10.1 s, bound 10 s"]
    assert misses(replace(GOOD, started=None)) == ["started was not seen"]
    broken = replace(GOOD, oracles={**GOOD.oracles, "no overlap": "an orphan"})
    assert (verdict(broken), misses(broken)) == (FAIL, ["no overlap: an orphan"])
    assert verdict(replace(GOOD, oracles={})) == FAIL


def test_a_row_that_did_not_run_says_so_and_passes_nothing() -> None:
    outcome = Outcome("clock", not_run="no libfaketime")
    assert verdict(outcome) == NOT_RUN
    assert cells(outcome)[-1] == "not run here: no libfaketime"


def test_the_table_keeps_the_order_of_the_matrix() -> None:
    text = markdown([replace(GOOD, key="oom", gone_there=1.0), GOOD])
    assert [line.split(" | ")[0] for line in text.splitlines()] == [
        "| fault",
        "| ---",
        "| KILL the head's vLLM",
        "| out of memory in the unit",
    ]
    assert "1.0 s there, 4.0 s | 5 s, 15 s" in text


def test_results_survive_being_kept() -> None:
    assert matrix.from_json(matrix.to_json(GOOD)) == GOOD


@pytest.mark.parametrize("fault", MATRIX, ids=lambda fault: fault.key)
def test_every_row_can_be_carried_out(fault: matrix.Fault) -> None:
    assert by_key(fault.key) is fault
    assert fault.effect[0] in (SCENES if fault.scene else EFFECTS)
    assert fault.scene or (fault.gone and fault.started)
