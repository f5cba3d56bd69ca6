"""Bundles of several hosts become one account of a failure."""

from __future__ import annotations

import json
from typing import Any

from muster.commands.logs import failure_text
from muster.status.failures import gather


def bundle(generation: str, wall: str, reason: str, first: str = "") -> dict[str, Any]:
    return {
        "generation": generation,
        "wall": wall,
        "digest": "d",
        "reason": reason,
        "first_here": {"reason": first, "process": "vllm"} if first else None,
        "processes": [{"name": "vllm", "lines": "\n".join(f"line {n}" for n in range(20))}],
    }


KILLED = "vllm was killed by SIGKILL"
ANSWERS = {
    "a": {
        "answer": {
            "bundles": [
                bundle("g2", "2026-11-22T10:00:02Z", f"the group was stopped: b: {KILLED}"),
                bundle("g1", "2026-11-22T09:00:00Z", KILLED, KILLED),
            ]
        }
    },
    "b": {"answer": {"bundles": [bundle("g2", "2026-11-22T10:00:01Z", KILLED, KILLED)]}},
    "c": {"error": "timed out"},
    "d": {"answer": {"error": "/etc/muster/g/guard.json is not JSON"}},
    "e": {"answer": {"bundles": []}},
}


def test_the_newest_failure_has_every_hosts_bundle_and_names_the_first() -> None:
    found = gather("g", "d", ANSWERS, 1)
    (failure,) = found.failures
    assert (failure.generation, failure.host, failure.reason) == ("g2", "b", KILLED)
    assert (failure.wall, failure.process) == ("2026-11-22T10:00:01Z", "vllm")
    assert list(failure.bundles) == ["a", "b"]
    assert found.hosts == {"a": 2, "b": 1, "e": 0}
    assert found.silent == {"c": "timed out", "d": "/etc/muster/g/guard.json is not JSON"}
    assert json.loads(json.dumps(found.as_json()))["failures"][0]["bundles"]["a"]["digest"] == "d"


def test_more_failures_come_newest_first() -> None:
    assert [failure.generation for failure in gather("g", "d", ANSWERS, 5).failures] == ["g2", "g1"]


def test_of_two_that_failed_at_once_the_others_tell_which_was_first() -> None:
    both = {
        "a": {"answer": {"bundles": [bundle("g", "t", KILLED, "vllm ended with status 0")]}},
        "b": {"answer": {"bundles": [bundle("g", "t", KILLED, KILLED)]}},
        "c": {"answer": {"bundles": [bundle("g", "t", f"the group was stopped: b: {KILLED}")]}},
    }
    assert gather("g", "d", both, 1).failures[0].host == "b"


def test_a_failure_that_its_host_did_not_keep_is_told_by_the_others() -> None:
    told = {"a": {"answer": {"bundles": [bundle("g", "t", "the group was stopped: b: silent for 15 s")]}}}
    (failure,) = gather("g", "d", told, 1).failures
    assert (failure.host, failure.reason) == ("", "the group was stopped: b: silent for 15 s")
    assert "(no host kept the first failure): the group was stopped: b: silent for 15 s" in failure_text(failure)


def test_a_failure_in_words() -> None:
    (failure,) = gather("g", "d", ANSWERS, 1).failures
    assert failure_text(failure).splitlines() == [
        "2026-11-22T10:00:01Z  generation g2",
        f"b: {KILLED}",
        *(f"  line {n}" for n in range(15, 20)),
    ]


def test_stacks_of_a_stall_are_named_by_host() -> None:
    stalled = bundle("g", "t", "no token for 120 s", "no token for 120 s") | {"stacks": {"worker_1.log": "Thread 1"}}
    (failure,) = gather("g", "d", {"a": {"answer": {"bundles": [stalled]}}}, 1).failures
    assert failure_text(failure).endswith("stacks of a, in the file: worker_1.log")


def test_nothing_kept_anywhere_is_no_failure() -> None:
    assert gather("g", "d", {"a": {"answer": {"bundles": []}}}, 1).failures == ()
