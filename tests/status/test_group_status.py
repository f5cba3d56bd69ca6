"""One view of a group out of what every host said, or did not say."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from rich.console import Console

from muster.commands.status import render
from muster.status.group_status import GroupStatus, group_status
from tests.sample_plans import plan

PLAN = plan("kimi-k2-instruct", 2, "H200")
HEAD, OTHER = PLAN.hosts
RANKS = 8


def engines(**change: Any) -> list[dict[str, Any]]:
    one = {"proof": 2.0, "tokens_per_s": 100.0, "in_flight": 1.0, "strikes": 0, "detail": ""}
    return [{"dp_rank": rank, **one, **change} for rank in range(2 * RANKS)]


def answers(**group: Any) -> dict[str, dict[str, Any]]:
    """What both hosts say of a group that runs well."""
    members = [{"host": name, "child": "running", "refused": "", "lacks": ""} for name in PLAN.hosts]
    head = {
        "digest": "d1",
        "phase": "running",
        "ready": True,
        "reason": "running",
        "generation": "ab" * 16,
        "restarts": 2,
        "members": members,
        "engines": engines(),
        "failures": [],
        **group,
    }
    unit = {"active": "active", "sub": "running", "restarts": 4, "since": ""}
    own = {"member": {"child": "running", "blocked": ""}, "detail": "vllm runs", "link_problem": ""}
    return {
        HEAD: {"unit": unit, "answer": {**copy.deepcopy(own), "group": head}},
        OTHER: {"unit": dict(unit), "answer": {**copy.deepcopy(own), "group": None}},
    }


def shown(found: GroupStatus) -> list[str]:
    """The table as an 80-column terminal shows it."""
    console = Console(width=80, highlight=False, no_color=True)
    with console.capture() as captured:
        console.print(render(found))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_group_that_runs() -> None:
    found = group_status(PLAN, answers())
    assert (found.phase, found.ready, found.restarts, found.digest) == ("running", True, 2, "d1")
    for number, row in enumerate(found.hosts):
        assert (row.host, row.node_rank) == (list(PLAN.hosts)[number], number)
        assert row.dp_ranks == tuple(range(RANKS * number, RANKS * (number + 1)))
        assert (row.unit, row.engine, row.restarts, row.note) == ("active (running)", "answering", 4, "")
        assert (row.tokens_per_s, row.proof) == (800.0, 2.0)
    assert shown(found) == [
        "kimi-k2-instruct  running",
        "generation abababab  plan d1  group restarts 2",
        f"these arguments plan {PLAN.digest}: muster deploy INVENTORY RECIPE --dry",
        "--diff says what differs",
        "",
        "host    rank  DP ranks  unit    engine     tok/s  proof  systemd restarts",
        "h200-0     0  0-7       active  answering    800    2 s                 4",
        "h200-1     1  8-15      active  answering    800    2 s                 4",
    ]
    assert json.loads(json.dumps(found.as_json()))["hosts"][1]["node_rank"] == 1


def test_the_oldest_proof_of_a_host_counts_and_a_missing_one_means_starting() -> None:
    told = answers(engines=[*engines()[:7], {**engines()[7], "proof": 31.0}, *engines(proof=None)[8:]])
    first, second = group_status(PLAN, told).hosts
    assert (first.proof, first.engine) == (31.0, "answering")
    assert (second.proof, second.engine) == (None, "starting")


def test_a_host_out_of_reach_is_a_row() -> None:
    told = answers()
    told[OTHER] = {"error": "could not connect to 198.51.100.2: timed out"}
    found = group_status(PLAN, told)
    row = found.hosts[1]
    assert (row.unit, row.restarts, row.note) == ("", None, "could not connect to 198.51.100.2: timed out")
    assert found.phase == "running"
    assert shown(found)[-3:] == [
        "h200-1     1  8-15      -       answering    800    2 s                 -",
        "",
        "h200-1: could not connect to 198.51.100.2: timed out",
    ]


@pytest.mark.parametrize("told", [{}, {HEAD: {}, OTHER: {}}, {HEAD: {"error": "no route"}, OTHER: {"error": "x"}}])
def test_without_the_head_nothing_is_known_and_nothing_breaks(told: dict[str, Any]) -> None:
    found = group_status(PLAN, told)
    assert (found.phase, found.ready, found.generation, found.failure) == ("unknown", False, "", None)
    assert len(found.hosts) == 2
    assert shown(found)[0].startswith("kimi-k2-instruct  unknown  ")


def test_the_newest_failure_is_shown_with_its_last_lines() -> None:
    newest = {"host": OTHER, "reason": "vllm was killed by SIGKILL", "age": 12.3, "lines": "\n".join("abcdefgh")}
    found = group_status(PLAN, answers(failures=[newest, {"host": HEAD, "reason": "older", "age": 4000, "lines": ""}]))
    assert found.failure == newest
    assert shown(found)[-6:] == [
        "last failure, 12 s ago: h200-1: vllm was killed by SIGKILL",
        *(f"  {line}" for line in "defgh"),
    ]


def test_the_sentence_that_says_why_is_shown_whole_and_whose_plan_it_was() -> None:
    why = "ValueError: To serve at least one request with the models's max seq len (131072), " + "more KV cache " * 20
    prefix = "(EngineCore_0 pid=7) ERROR 11-26 17:40:00 [core.py:700] "
    lines = "\n".join([prefix + "Traceback (most recent call last):", prefix + why.strip(), *"abcdef"])
    failure = {"host": OTHER, "reason": "vllm exited with status 1", "age": 12.3, "lines": lines, "digest": "d1"}
    text = shown(group_status(PLAN, answers(failures=[failure])))
    start = text.index("last failure, 12 s ago, of this plan: h200-1: vllm exited with status 1")
    assert " ".join(line.strip() for line in text[start + 1 : -5]) == why.strip()
    assert text[-5:] == [f"  {line}" for line in "bcdef"]
    older = shown(group_status(PLAN, answers(failures=[{**failure, "digest": "d0"}])))
    assert "last failure, 12 s ago, of plan d0: h200-1: vllm exited with status 1" in older


def test_a_group_as_planned_says_so_whatever_variant_the_drivers_chose() -> None:
    for told, digests in ((answers(digest=PLAN.digest), ()), (answers(), ("d1",))):
        found = group_status(PLAN, told, digests)
        assert (found.as_planned, found.whole) == (True, True)
        assert f"plan {found.digest} as planned" in shown(found)[1]
    assert group_status(PLAN, answers()).as_planned is False
    assert group_status(PLAN, {}).as_planned is None


def test_a_host_that_the_running_group_leaves_out_is_no_running_group() -> None:
    told = answers()
    told[HEAD]["answer"]["group"]["members"] = [{"host": HEAD, "child": "running", "refused": "", "lacks": ""}]
    reason = "h200-1 is no host of this group"
    told[OTHER]["answer"]["member"] = {"child": "none", "head_phase": "refused", "head_reason": reason}
    found = group_status(PLAN, told)
    assert (found.ready, found.whole, found.outside) == (True, False, (OTHER,))
    assert found.hosts[1].note == reason
    lines = " ".join(shown(found))
    assert "without h200-1, which the running group leaves out: muster deploy INVENTORY RECIPE" in lines


def test_a_member_that_the_head_refuses_is_left_out_as_well() -> None:
    told = answers()
    told[HEAD]["answer"]["group"]["members"][1]["refused"] = "h200-1 carries plan a, the head b"
    assert group_status(PLAN, told).whole is False


def test_hosts_of_the_group_that_the_arguments_do_not_name() -> None:
    told = answers()
    told[HEAD]["answer"]["group"]["members"].append({"host": "h200-9", "child": "running", "refused": "", "lacks": ""})
    found = group_status(PLAN, told)
    assert (found.beyond, found.whole) == (("h200-9",), True)
    assert "with h200-9, which these arguments do not name" in " ".join(shown(found))


def test_a_stopped_group_says_by_whom_since_when_and_how_to_go_on() -> None:
    reason = "stopped by ann@desk since 2026-11-26 17:40:00 UTC"
    told = answers(phase="stopped", ready=False, reason=reason, held_by="ann@desk", held_at=1.0, digest=PLAN.digest)
    found = group_status(PLAN, told)
    assert (found.held_by, found.held_at) == ("ann@desk", 1.0)
    lines = shown(found)
    assert lines[0] == "kimi-k2-instruct  stopped  by ann@desk since 2026-11-26 17:40:00 UTC"
    assert lines[2] == "muster resume INVENTORY RECIPE starts it again"


@pytest.mark.parametrize(
    ("member", "own", "note"),
    [
        ({"lacks": "blocked: port 8000 is taken"}, {}, "blocked: port 8000 is taken"),
        ({"refused": "h200-1 carries plan a, the head b"}, {}, "h200-1 carries plan a, the head b"),
        ({}, {"member": {"child": "none", "blocked": "fatal Xid: 79"}}, "fatal Xid: 79"),
        ({}, {"link_problem": "the head does not answer"}, "the head does not answer"),
        ({}, {"link_problem": "reset", "member": {"child": "running", "head_heard": 1.5}}, ""),
        ({}, {"link_problem": "reset", "member": {"child": "running", "head_heard": 9.5}}, "reset"),
        ({}, {"detail": "ray is not ready: /usr/bin/env (4 s)"}, "ray is not ready: /usr/bin/env (4 s)"),
        ({}, {}, ""),
    ],
)
def test_what_keeps_a_host_stands_below_the_table(member: dict[str, str], own: dict[str, Any], note: str) -> None:
    told = answers()
    told[HEAD]["answer"]["group"]["members"][1] |= member
    told[OTHER]["answer"] |= own
    found = group_status(PLAN, told)
    assert found.hosts[1].note == note
    assert (f"h200-1: {note}" in shown(found)) == bool(note)


def test_a_failed_group_and_a_unit_that_starts_anew() -> None:
    told = answers(phase="failed", ready=False, reason="failed", engines=[])
    told[HEAD]["unit"] |= {"active": "activating", "sub": "auto-restart"}
    lines = shown(group_status(PLAN, told))
    assert lines[0] == "kimi-k2-instruct  failed"
    assert any("auto-restart" in line for line in lines)


def test_the_reason_is_said_once() -> None:
    told = answers(phase="gather", ready=False, reason="gather, h200-1: silent; h200-0: no word yet", engines=[])
    assert shown(group_status(PLAN, told))[0] == "kimi-k2-instruct  gather  h200-1: silent; h200-0: no word yet"
    for member, lacks in zip(told[HEAD]["answer"]["group"]["members"], ("no word yet", "silent"), strict=True):
        member["lacks"] = lacks
    lines = shown(group_status(PLAN, told))
    assert (lines[0], lines[-2:]) == ("kimi-k2-instruct  gather", ["h200-0: no word yet", "h200-1: silent"])


def test_log_lines_lose_their_prefix_and_are_cut() -> None:
    lines = "(APIServer pid=7) ERROR 11-22 03:15:34 [a.py:1] EngineCore_DP1 died unexpectedly\n" + "x" * 500
    failure = {"host": OTHER, "reason": "vllm ended", "age": 1.0, "lines": lines}
    assert shown(group_status(PLAN, answers(failures=[failure])))[-3:] == [
        "  EngineCore_DP1 died unexpectedly",
        "  " + "x" * 78,
        "  " + "x" * 71 + "…",
    ]


def test_a_host_without_a_dp_rank_runs_and_proves_nothing() -> None:
    ray = plan("kimi-k2-instruct", 2, "H800")
    told = {
        name: {"unit": {"active": "active", "sub": "running"}, "answer": {"member": {"child": "running"}}}
        for name in ray.hosts
    }
    row = group_status(ray, told).hosts[1]
    assert (row.engine, row.proof, row.tokens_per_s) == ("running", None, None)


def test_a_guard_between_two_lives_is_restarting() -> None:
    told = answers()
    error = {"error": "no guard answers at /run/x (Connection refused)"}
    told[HEAD] = {"unit": {"active": "activating", "sub": "start", "restarts": 5, "since": ""}, "answer": error}
    found = group_status(PLAN, told)
    assert (found.phase, found.reason, found.hosts[0].note) == (
        "restarting",
        "the guard is between two lives",
        "the guard is between two lives",
    )
    assert shown(found)[0] == "kimi-k2-instruct  restarting  the guard is between two lives"
    told[HEAD]["unit"]["active"] = "inactive"
    assert group_status(PLAN, told).phase == "unknown"


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (None, ""),
        ({"group": {"ready": True, "generation": "cd" * 16}}, "weights are kept on the GPUs; generation cdcdcdcd"),
        ({"error": "no guard answers"}, "weights are not kept: no guard answers"),
        (
            {"group": {"ready": False, "reason": "gather, h: blocked", "failures": [{"host": "h", "reason": "died"}]}},
            "weights are not kept: gather, h: blocked; last failure: h: died",
        ),
    ],
)
def test_weights_that_stay_have_a_line(weights: dict[str, Any] | None, said: str) -> None:
    told = answers()
    if weights is not None:
        told[HEAD]["weights"] = weights
    found = group_status(PLAN, told)
    assert found.weights == said
    assert not said or said in " ".join(shown(found))


RATE = {"one": 2 * 10**9, "all": 62 * 10**8, "readers": 8, "age": 60}


def test_the_last_load_stands_beside_the_expected_one() -> None:
    told = answers()
    for host, seconds in ((HEAD, 80.0), (OTHER, 91.4)):
        told[host]["rate"] = RATE
        told[host]["answer"]["children"] = [
            {"name": "ray", "load": {"read": None, "model": None}},
            {"name": "vllm", "load": {"read": seconds, "model": 100.0}},
        ]
    told[HEAD]["answer"]["group"]["digest"] = PLAN.digest
    assert PLAN.load is not None
    expected = PLAN.load.bytes / RATE["all"]
    found = group_status(PLAN, told)
    assert [row.load_seconds for row in found.hosts] == [80.0, 91.4]
    assert [row.load_expected for row in found.hosts] == [pytest.approx(expected)] * 2
    assert found.loaded == f"weights: read in 91 s (h200-1); at least {expected:.0f} s from a cold disk"
    assert shown(found)[-1] == found.loaded
    assert json.loads(json.dumps(found.as_json()))["hosts"][1]["load_seconds"] == 91.4


def test_the_loader_of_the_generation_is_named_and_what_is_expected_is_autos() -> None:
    told = answers(digest=PLAN.digest, loader="instanttensor")
    told[HEAD]["rate"] = RATE
    assert PLAN.load is not None
    expected = f"auto takes at least {PLAN.load.bytes / RATE['all']:.0f} s from a cold disk"
    assert group_status(PLAN, told).loaded == f"weights: read by instanttensor; {expected} ({HEAD})"
    told[HEAD]["answer"]["children"] = [{"name": "vllm", "load": {"read": 24.0, "model": 30.0}}]
    assert group_status(PLAN, told).loaded == f"weights: read in 24 s by instanttensor ({HEAD}); {expected}"
    del told[HEAD]["rate"]
    assert group_status(PLAN, told).loaded == f"weights: read in 24 s by instanttensor ({HEAD})"
    told[HEAD]["weights"] = {"children": [{"name": "weights", "load": {"read": 43.0, "model": None}}], "group": {}}
    assert group_status(PLAN, told).loaded == f"weights: read in 43 s ({HEAD})", "the daemons load in their own way"


def test_a_load_that_is_not_done_is_expected_and_that_of_another_plan_is_not() -> None:
    told = answers(phase="starting", ready=False, digest=PLAN.digest)
    assert group_status(PLAN, told).loaded == ""
    told[OTHER] |= {"rate": RATE}
    assert group_status(PLAN, told).loaded.endswith(" s from a cold disk (h200-1)")
    told[HEAD]["answer"]["group"]["digest"] = "d1"
    assert group_status(PLAN, told).loaded == ""


def test_where_weights_are_kept_the_load_is_their_daemons() -> None:
    told = answers()
    for host in (HEAD, OTHER):
        told[host]["answer"]["children"] = [{"name": "vllm", "load": {"read": 1.0, "model": 1.4}}]
        told[host]["weights"] = {"children": [{"name": "weights", "load": {"read": 43.0, "model": None}}]}
    assert [row.load_seconds for row in group_status(PLAN, told).hosts] == [43.0, 43.0]
    told[OTHER]["weights"] = {"error": "no answer"}  # what the engine maps is not read from the disk
    assert [row.load_seconds for row in group_status(PLAN, told).hosts] == [43.0, None]


LOADED = plan("kimi-k2-instruct", 2, "H200", model="/srv/m", offline=True)
"""A plan of a group whose guards choose a loader."""


def test_a_loader_that_was_measured_is_expected_to_take_its_own_time() -> None:
    assert LOADED.loaders is not None
    whole = LOADED.loaders.loading.whole
    rates = {"auto": {"rate": whole // 100, "peak": 0}, "instanttensor": {"rate": whole // 25, "peak": 0}}
    told = answers(digest=LOADED.digest, loader="instanttensor")
    for host, slower in ((HEAD, 1), (OTHER, 2)):
        found = {name: {**each, "rate": each["rate"] // slower} for name, each in rates.items()}
        told[host] |= {
            "rate": RATE,
            "loaders": {"engine": LOADED.release.id, "ranks": LOADED.loaders.ranks.key, "age": 60, "loaders": found},
        }
    found = group_status(LOADED, told)
    assert [round(row.load_expected or 0) for row in found.hosts] == [25, 50]
    assert [row.load_measured for row in found.hosts] == [True, True]
    expected = "50 s from a cold disk by what was measured"
    assert found.loaded == f"weights: read by instanttensor; {expected} ({OTHER})"
    assert " ".join(shown(found)).endswith(found.loaded)
    told[OTHER]["answer"]["children"] = [{"name": "vllm", "load": {"read": 54.0, "model": 60.0}}]
    assert group_status(LOADED, told).loaded == f"weights: read in 54 s by instanttensor ({OTHER}); {expected}"


def test_a_generation_that_loads_by_default_is_expected_to_take_as_long_as_auto() -> None:
    assert LOADED.loaders is not None
    rate = {"rate": LOADED.loaders.loading.mapped // 80, "peak": 0}
    told = answers(digest=LOADED.digest)
    told[HEAD] |= {
        "rate": RATE,
        "loaders": {
            "engine": LOADED.release.id,
            "ranks": LOADED.loaders.ranks.key,
            "age": 60,
            "loaders": {"auto": rate},
        },
    }
    found = group_status(LOADED, told)
    assert found.loaded == f"weights: 80 s from a cold disk by what was measured ({HEAD})"
    told[HEAD]["answer"]["group"]["loader"] = "fastsafetensors"  # which was not measured here: the disk's figure counts
    assert group_status(LOADED, told).hosts[0].load_measured is False
    assert "auto takes at least" in group_status(LOADED, told).loaded
