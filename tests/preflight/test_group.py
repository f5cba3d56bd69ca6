"""Verdicts that need several hosts: parity, clocks, pairs, drift, NCCL, and the outcome of all."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.preflight import allreduce, clocks, drift, outcome, pairs, parity
from muster.preflight.catalogue import known_waivers
from muster.preflight.host_report import Clock, HostReport, unreachable
from muster.preflight.outcome import Outcome
from muster.preflight.pairs import Measured
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict

from . import sample
from .sample import printed

HOSTS = ("h200-0", "h200-1", "h200-2")


def sample_reports(count: int = 3, **odd: Any) -> list[HostReport]:
    """Return healthy hosts; `odd` changes the last one's answers."""
    reports = [sample.report(f"h200-{i}", f"198.51.100.{11 + i}") for i in range(count - 1)]
    return [*reports, sample.report(f"h200-{count - 1}", f"198.51.100.{10 + count}", **odd)]


def wants(reports: list[HostReport], **changed: Any) -> dict[str, Any]:
    return {r.host: sample.needs(r.host, f"198.51.100.{11 + i}", **changed) for i, r in enumerate(reports)}


def old_driver() -> dict[str, Any]:
    return printed(sample.recorded("h200x2-query-gpu.csv").replace("580.159.04", "535.183.01"))


# Parity


def test_parity_names_the_odd_one_out() -> None:
    rows = {row.name: row for row in parity.compare(sample_reports(probe_gpus__gpus=old_driver()))}
    assert (rows["driver"].usual, rows["driver"].odd) == ("580.159.04", ("h200-2",))
    assert rows["kernel"].odd == ()
    assert set(rows) == {name.partition(".")[2] for name in parity_checks()}


def parity_checks() -> list[str]:
    from muster.preflight.catalogue import CHECKS

    return [name for name in CHECKS if name.startswith("parity.")]


def odd_answers() -> dict[str, dict[str, Any]]:
    installed, system = sample.answers()["probe_engine"], sample.answers()["probe_machine"]["system"]["value"]
    gpus = sample.recorded("h200x2-query-gpu.csv")

    def version(name: str) -> dict[str, Any]:
        release = {**installed["release"], "versions": {**installed["release"]["versions"], name: "0.0.1"}}
        return {"probe_engine": {**installed, "release": release}}

    return {
        "driver": {"probe_gpus__gpus": old_driver()},
        "kernel": {"probe_machine__system": {"value": {**system, "kernel": "5.15.0"}}},
        "product": {"probe_gpus__gpus": printed(gpus.replace("NVIDIA H200", "NVIDIA H20"))},
        "count": {"probe_gpus__gpus": printed("\n".join(gpus.splitlines()[:2]))},
        "python": {"probe_engine": {**installed, "release": {**installed["release"], "python": "3.11.1"}}},
        **{name: version(name) for name in ("vllm", "torch", "nccl", "ray")},
        "revision": {"probe_engine": {**installed, "revision": "d" * 40}},
        "config": {"probe_engine": {**installed, "digest": "f" * 16}},
    }


@pytest.mark.parametrize("name", sorted(odd_answers()))
def test_each_parity_check_marks_the_odd_host_and_no_other(name: str) -> None:
    verdicts = parity.verdicts(parity.compare(sample_reports(**odd_answers()[name])))
    bad = {(v.check, v.host): v for v in verdicts if v.level != "ok"}
    assert list(bad) == [(f"parity.{name}", "h200-2")]
    verdict = bad[f"parity.{name}", "h200-2"]
    assert verdict.level == ("fail" if name in ("product", "count") else "warn")
    assert "as on the other hosts" in verdict.needed
    assert verdict.fix


def test_every_parity_check_has_an_odd_answer() -> None:
    assert {f"parity.{name}" for name in odd_answers()} == set(parity_checks())


def test_two_hosts_that_differ_have_no_majority() -> None:
    rows = {row.name: row for row in parity.compare(sample_reports(2, probe_gpus__gpus=old_driver()))}
    assert (rows["driver"].usual, rows["driver"].odd) == (None, ("h200-0", "h200-1"))


# Clocks


def clocked(*offsets: float, slack: float = 0.2) -> list[HostReport]:
    return [
        replace(
            sample.report(f"h200-{i}"),
            clock=Clock(1000.0 + offset, 1000.0 + offset, 1000.0 - slack, 1000.0 + slack),
        )
        for i, offset in enumerate(offsets)
    ]


@pytest.mark.parametrize(
    ("offsets", "levels"),
    [
        ((0, 0.1, -0.1), ("ok", "ok", "ok")),
        ((0, 3600, 0.1), ("ok", "fail", "ok")),
        ((0, -3600), ("ok", "fail")),
        ((3600, 0), ("fail", "ok")),
        ((3600, 3600, 3600), ("ok", "ok", "ok")),
        ((0, 5, 0), ("ok", "warn", "ok")),
    ],
)
def test_clocks(offsets: tuple[float, ...], levels: tuple[str, ...]) -> None:
    assert tuple(verdict.level for verdict in clocks.verdicts(clocked(*offsets))) == levels


def test_clock_says_how_far_and_which_way() -> None:
    found = {v.host: v.found for v in clocks.verdicts(clocked(0, -3600, 0.1))}
    assert found["h200-1"] == "60.0 min behind h200-0"


def test_a_slow_probe_proves_nothing_about_a_clock() -> None:
    assert {v.level for v in clocks.verdicts(clocked(0, 4, slack=3.0))} == {"ok"}


# Pairs


@given(st.integers(0, 70))
def test_rounds_meet_each_pair_once_and_no_host_twice_a_round(count: int) -> None:
    hosts = [f"h{i}" for i in range(count)]
    schedule = pairs.rounds(hosts)
    for meetings in schedule:
        busy = [host for pair in meetings for host in pair]
        assert len(busy) == len(set(busy))
    met = [frozenset(pair) for meetings in schedule for pair in meetings]
    assert len(met) == len(set(met)) == count * (count - 1) // 2
    assert len(schedule) <= max(0, count - 1 + count % 2)


def way(caller: str, server: str, **changed: Any) -> Measured:
    return Measured(caller, server, **{"round_trip": 80e-6, "bits": 20e9, "packet": 9000, **changed})


def all_ways(**changed: Any) -> list[Measured]:
    last = changed.pop("last", {})
    return [way("h200-0", "h200-1"), way("h200-0", "h200-2"), way("h200-1", "h200-2", **last)]


@pytest.mark.parametrize(
    ("check", "level", "last", "found"),
    [
        ("fabric.reach", "fail", {"error": "timed out"}, "h200-2: timed out"),
        ("fabric.mtu", "fail", {"fragments": "3 packets lost"}, "9000 bytes to h200-2: 3 packets lost"),
        ("fabric.mtu", "warn", {"fragments": Unreadable("ping is not installed")}, "not installed"),
        ("fabric.round_trip", "warn", {"round_trip": 5e-3}, "5.0 ms to h200-2"),
        ("fabric.round_trip", "warn", {"round_trip": 9e-4}, "900 us to h200-2"),
        ("fabric.throughput", "warn", {"bits": 0.9e9}, "0.90 Gbit/s to h200-2"),
        ("fabric.throughput", "warn", {"bits": 9e9}, "9.00 Gbit/s to h200-2"),
    ],
)
def test_each_pair_check_names_the_pair(check: str, level: str, last: dict[str, Any], found: str) -> None:
    verdicts = pairs.verdicts(all_ways(last=last))
    bad = {v.host: v for v in verdicts if v.level != "ok"}
    assert set(bad) == {"h200-1", "h200-2"}
    assert (bad["h200-1"].check, bad["h200-1"].level) == (check, level)
    assert found in bad["h200-1"].found
    assert bad["h200-1"].fix


def test_pairs_that_are_well_say_so_and_the_slowest_is_named() -> None:
    ways = all_ways(last={"bits": 15e9})
    assert {v.level for v in pairs.verdicts(ways)} == {"ok"}
    assert pairs.slowest(ways) == (
        "slowest pair: h200-1 to h200-2, 15.00 Gbit/s, round trip 80 us; median 20.00 Gbit/s"
    )
    assert pairs.slowest([]) is None


def test_mtus_must_agree() -> None:
    same, odd = pairs.mtu_verdicts({"a": 9000, "b": 9000}), pairs.mtu_verdicts({"a": 1500, "b": 9000})
    assert {v.level for v in same} == {"ok"}
    assert [(v.host, v.level, v.found) for v in odd] == [("a", "fail", "1500"), ("b", "ok", "9000")]


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.dictionaries(
    st.sampled_from(["error", "round_trip", "bits", "packet", "ping"]),
    st.none() | st.text(max_size=5) | st.floats() | st.integers() | st.dictionaries(st.text(max_size=3), st.none())
)))  # fmt: skip
def test_measurements_of_any_shape_are_read(answers: dict[str, dict[str, Any]]) -> None:
    assert pairs.verdicts([pairs.measured(("a", "b"), answers)])


def test_requests_of_a_pair_meet() -> None:
    reports = sample_reports(2)
    needs = wants(reports)
    sizes = pairs.mtus(reports, needs)
    asked = pairs.requests(("h200-0", "h200-1"), needs, {**sizes, "h200-1": 1500}, 29650, "t")
    call, serve = asked["h200-0"], asked["h200-1"]
    assert (call["role"], call["peer"], call["packet"]) == ("call", "198.51.100.12", 1500)
    assert (serve["role"], serve["address"], serve["port"]) == ("serve", "198.51.100.12", call["port"])


STALLED = {"role": "call", "round_trip": 80e-6, "stalled": "timed out", "packet": 9000}


def test_data_that_stalls_is_the_way_s_fault_unless_full_packets_explain_it() -> None:
    lost = {**STALLED, "ping": {"arrived": False, "complaint": "3 packets transmitted, 0 received"}}
    (result,) = [pairs.measured(("a", "b"), {"a": lost, "b": {"error": "reset"}})]
    bad = {v.check: v.level for v in pairs.verdicts([result]) if v.level != "ok"}
    assert bad == {"fabric.mtu": "fail", "fabric.throughput": "warn"}
    plain = pairs.measured(("a", "b"), {"a": {**STALLED, "ping": {"arrived": True}}, "b": {"bytes": 7}})
    assert plain.error == "connects, but data stalls: timed out"


# NCCL

LOG = """h0:1:1 [0] NCCL INFO Channel 00/0 : 7[7] -> 8[0] [send] via NET/IB/3/GDRDMA
h0:1:1 [0] NCCL INFO Channel 01/0 : 7[7] -> 8[0] [receive] via NET/IB/4/GDRDMA
h0:1:1 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM
"""


def reduced(log: str = LOG, seconds: float = 1e-3, ranks: int = 16) -> allreduce.AllReduce:
    return allreduce.read({"ranks": ranks, "seconds": seconds, "bytes": 1 << 28, "log": log})


def test_nccl_reads_transports_and_bus_bandwidth() -> None:
    result = reduced()
    assert result.transports == {"NET/IB/GDRDMA": 2, "P2P/CUMEM": 1}
    assert result.bus_bandwidth == pytest.approx((1 << 28) / 1e-3 * 2 * 15 / 16)


@pytest.mark.parametrize(
    ("result", "check", "level"),
    [
        (reduced("a via NET/Socket/0"), "nccl.transport", "warn"),
        (allreduce.read({"error": "GPU 0: died"}), "nccl.transport", "fail"),
        (allreduce.read({"ranks": "x"}), "nccl.transport", "fail"),
        (reduced(seconds=1.0), "nccl.bandwidth", "warn"),
        (reduced("a via P2P/CUMEM", seconds=0.01), "nccl.bandwidth", "warn"),
    ],
)
def test_nccl_verdicts(result: allreduce.AllReduce, check: str, level: str) -> None:
    verdicts = allreduce.verdicts({"h200-0": result}, [sample.report()])
    assert (check, level) in [(v.check, v.level) for v in verdicts]


def test_nccl_on_sockets_is_fine_without_rdma() -> None:
    bare = sample.report(probe_machine__infiniband={"value": {"ports": []}})
    verdicts = allreduce.verdicts({"h200-0": reduced("a via NET/Socket/0")}, [bare])
    assert {v.level for v in verdicts} == {"ok"}


# Drift


def drifted(**odd: Any) -> Outcome:
    reports = sample_reports(**odd)
    return drift.judge_drift("drift", reports, wants(reports))


def test_no_drift() -> None:
    assert drifted().level == "ok"


@pytest.mark.parametrize(
    ("check", "found", "changed"),
    [
        ("drift.files", "/etc/muster/g/vllm.env differs", {"files": {"/etc/muster/g/vllm.env": "b" * 64}}),
        ("drift.files", "/etc/muster/g/vllm.env is missing", {"files": {"/etc/muster/g/vllm.env": None}}),
        ("drift.versions", "nothing installed", {"release": None}),
        ("drift.versions", "vllm 0.32.0, planned 0.33.0", {"release": {"versions": {"vllm": "0.32.0"}}}),
        ("drift.revision", "d" * 40, {"revision": "d" * 40}),
    ],
)
def test_drift(check: str, found: str, changed: dict[str, Any]) -> None:
    result = drifted(probe_engine={**sample.answers()["probe_engine"], **changed})
    bad = [v for v in result.verdicts if v.level != "ok" and v.check == check]
    assert [v.host for v in bad] == ["h200-2"]
    assert found in bad[0].found


def test_a_local_version_part_counts_only_when_asked_for() -> None:
    assert drift.same_version("0.32.0+cpu", "0.32.0")
    assert not drift.same_version("0.32.0", "0.32.0+cpu")
    assert not drift.same_version(None, "0.32.0")


def test_an_unreached_host_is_drift() -> None:
    reports = [*sample_reports(2), unreachable("h200-9", "timed out")]
    assert drift.judge_drift("drift", reports, wants(reports)).level == "fail"


# Outcome


def judged(reports: list[HostReport], **changed: Any) -> Outcome:
    return outcome.judge_group("t", reports, wants(reports, hosts=len(reports)), **changed)


def test_well_is_0() -> None:
    result = judged(sample_reports(), measured=all_ways())
    assert (result.level, result.exit_status) == ("ok", 0)
    assert result.notes[0] == "engine build: cu130 (CUDA 13.0), for driver 580.159.04 on h200-0"
    assert result.notes[1].startswith("slowest pair: ")


def test_a_warning_is_3_and_a_failure_1() -> None:
    slow = printed(sample.recorded("h200x2-query-gpu.csv").replace("0x0000000000000001", "0x40"))
    assert judged(sample_reports(probe_gpus__gpus=slow)).exit_status == 3
    gone = printed("No devices were found\n", rc=6)
    assert judged(sample_reports(probe_gpus__gpus=gone)).exit_status == 1


def test_older_driver_gives_the_whole_group_the_older_build() -> None:
    result = judged(sample_reports(probe_gpus__gpus=old_driver()))
    assert result.notes[0] == "engine build: cu129 (CUDA 12.9), for driver 535.183.01 on h200-2"


def test_waived_stays_visible_and_stops_nothing() -> None:
    mig = printed(sample.recorded("h200x2-query-gpu.csv").replace("Disabled", "Enabled"))
    result = judged(sample_reports(probe_gpus__gpus=mig), waived=("gpu.mig", "gpu.xid"))
    assert (result.level, result.waived, result.failures()) == ("ok", ("gpu.mig", "gpu.xid"), ())
    (verdict,) = [v for v in result.verdicts if v.level == "fail"]
    assert (verdict.check, verdict.waived) == ("gpu.mig", True)
    assert not [v for v in result.verdicts if v.check == "gpu.xid" and v.waived], "a check that passes needs no waiver"


def test_a_waiver_of_an_unknown_check_is_refused() -> None:
    with pytest.raises(Refusal, match=r"did you mean 'gpu\.mig'"):
        known_waivers(["gpu.migg"])
    assert known_waivers(["gpu.mig", "gpu.mig"]) == ("gpu.mig",)


def test_unreachable_one_of_sixteen_is_a_row() -> None:
    reports = [*sample_reports(15), unreachable("h200-15", "No route to host")]
    result = judged(reports)
    assert [(v.check, v.host) for v in result.failures()] == [("host.reached", "h200-15")]
    assert result.exit_status == 1


def test_mtu_difference_is_told_once_for_each_host() -> None:
    reports = sample_reports(probe_gpus__links=printed(sample.links("198.51.100.13", mtu=1500)))
    result = judged(reports, measured=all_ways(last={"fragments": "100% packet loss"}))
    mtus = [v for v in result.verdicts if v.check == "fabric.mtu"]
    assert sorted(v.host for v in mtus) == ["h200-0", "h200-1", "h200-2"]
    assert {v.host: v.level for v in mtus} == {"h200-0": "ok", "h200-1": "fail", "h200-2": "fail"}


def test_json_is_whole() -> None:
    data = json.loads(json.dumps(judged(sample_reports()).as_json()))
    assert set(data) == {"title", "level", "hosts", "waived", "notes", "verdicts", "parity"}
    assert set(data["verdicts"][0]) == set(Verdict.__dataclass_fields__)
