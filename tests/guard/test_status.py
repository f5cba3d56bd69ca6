"""`/ready`, `/status` and `/metrics` as pure functions of what the head knows."""

from __future__ import annotations

import copy
import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from muster.guard import config, head_core, liveness, status
from muster.guard.barrier import Peer
from muster.guard.head_core import HeadState
from muster.guard.liveness import CanaryBack, LivenessState, Up
from muster.guard.messages import ABORT, DRAIN, GATHER, HELD, RUN, Failure, Report
from muster.guard.restart_policy import RestartRecord

from .test_config import DATA

NOW = 1000.0
CONFIG = config.parse(json.dumps({**copy.deepcopy(DATA), "host": "h0"}))


def state(phase: str, record: RestartRecord | None = None, **change: Any) -> HeadState:
    made = head_core.start(CONFIG.group, CONFIG.settings, "g" * 32, record or RestartRecord(), NOW - 100)
    return replace(made, phase=phase, **change)


def engine(*answered: int, at: float = NOW - 10) -> LivenessState:
    """The engine's state with an answer of some DP ranks."""
    made, _ = liveness.step(liveness.start(CONFIG.settings, CONFIG.group.dp_ranks), Up(), at)
    for rank in answered:
        made, _ = liveness.step(made, CanaryBack(rank, "answered"), at)
    return made


READY = state(RUN, ready_at=NOW - 50)
ALL = engine(0, 1, 2, 3)
ABORTED = RestartRecord(
    aborts=(NOW - 9, NOW - 2), streak=2, failures=(Failure("h1", "vllm was killed by SIGKILL", at=NOW - 2),)
)
SPENT = (
    "failed: the restart budget is spent; nothing starts until an operator resumes the group; the last failure: "
    "h1: vllm was killed by SIGKILL"
)

CASES = [
    (READY, ALL, "running", True, "running"),
    (READY, None, "running", False, "running"),
    (
        READY,
        engine(0, 1, 2, 3, at=NOW - 61),
        "running",
        False,
        "running, without fresh proof of life of DP ranks 0, 1, 2, 3",
    ),
    (state(RUN), None, "starting", False, "starting"),
    (state(RUN), engine(1, 2), "starting", False, "starting, no answer yet from DP ranks 0, 3"),
    (
        state(DRAIN, ready_at=NOW - 50, reason="stopped by an operator"),
        ALL,
        "drain",
        False,
        "drain: stopped by an operator",
    ),
    (state(ABORT, ready_at=NOW - 50, reason="h1: silent"), ALL, "abort", False, "abort: h1: silent"),
    (state(HELD, RestartRecord(held="stopped")), None, "stopped", False, "stopped"),
    (
        state(HELD, RestartRecord(held="stopped", held_by="ann@desk", held_at=1764178800.0)),
        None,
        "stopped",
        False,
        "stopped by ann@desk since 2025-11-26 17:40:00 UTC",
    ),
    (
        state(HELD, replace(ABORTED, held="failed")),
        None,
        "failed",
        False,
        SPENT,
    ),
    (state(GATHER), None, "gather", False, "gather, h0: not joined yet; h1: not joined yet"),
    (state(GATHER, ABORTED), None, "backoff", False, "backoff, starts in 3 s, h0: not joined yet; h1: not joined yet"),
]


@pytest.mark.parametrize(("head", "alive", "phase", "ready", "reason"), CASES, ids=lambda case: str(case)[:20])
def test_phase_readiness_and_reason(
    head: HeadState, alive: LivenessState | None, phase: str, ready: bool, reason: str
) -> None:
    assert status.phase(head, NOW) == phase
    assert phase in status.PHASES
    assert status.is_ready(head, alive, NOW) is ready
    assert status.explain(head, alive, NOW) == reason
    report = json.loads(json.dumps(status.group_status(CONFIG, head, alive, NOW)))
    assert (report["phase"], report["ready"], report["reason"]) == (phase, ready, reason)
    assert [member["host"] for member in report["members"]] == ["h0", "h1"]


def test_one_rank_without_fresh_proof_is_enough_for_a_503() -> None:
    ranks = {**ALL.ranks, 2: replace(ALL.ranks[2], proof=NOW - 60.5)}
    late = replace(ALL, ranks=ranks)
    assert not status.is_ready(READY, late, NOW)
    assert status.explain(READY, late, NOW) == "running, without fresh proof of life of DP ranks 2"


# The text format, by its own grammar: https://prometheus.io/docs/instrumenting/exposition_formats/
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"({NAME})\{{({LABEL}(?:,{LABEL})*)\}} (\S+)")
HELP = re.compile(rf"# HELP ({NAME}) (?:[^\\\n]|\\[\\n])+")
TYPE = re.compile(rf"# TYPE ({NAME}) (counter|gauge)")


def read(text: str) -> dict[str, dict[str, float]]:
    """Read metrics strictly: metric -> labels -> value. Anything outside the grammar fails."""
    assert text.endswith("\n")
    metrics: dict[str, dict[str, float]] = {}
    lines = text[:-1].split("\n")
    while lines:
        help_line, kind = HELP.fullmatch(lines.pop(0)), TYPE.fullmatch(lines.pop(0))
        assert help_line
        assert kind
        assert help_line[1] == kind[1]
        assert help_line[1] not in metrics, "a metric is one block"
        assert (kind[2] == "counter") == help_line[1].endswith("_total")
        samples = metrics[help_line[1]] = {}
        while lines and not lines[0].startswith("#"):
            sample = SAMPLE.fullmatch(lines.pop(0))
            assert sample
            assert sample[1] == help_line[1]
            assert sample[2] not in samples, "a series appears once"
            samples[sample[2]] = float(sample[3])
            assert not math.isnan(samples[sample[2]])
    return metrics


@pytest.mark.parametrize(("head", "alive", "phase", "ready", "reason"), CASES, ids=lambda case: str(case)[:20])
def test_metrics_are_prometheus_text(
    head: HeadState, alive: LivenessState | None, phase: str, ready: bool, reason: str
) -> None:
    metrics = read(status.prometheus(CONFIG, head, alive, NOW))
    assert metrics["muster_ready"] == {'group="kimi-k2"': float(ready)}
    on = [labels for labels, value in metrics["muster_phase"].items() if value == 1.0]
    assert on == [f'group="kimi-k2",phase="{phase}"']
    assert len(metrics["muster_phase"]) == len(status.PHASES)
    assert metrics["muster_restarts_total"] == {'group="kimi-k2"': 0.0}
    assert len(metrics["muster_member_silence_seconds"]) == 2
    assert len(metrics.get("muster_proof_age_seconds", ())) == (4 if alive else 0)


def test_awkward_names_are_escaped() -> None:
    group = replace(CONFIG.group, name='a"b\\c\nd é')
    metrics = read(status.prometheus(replace(CONFIG, group=group), READY, ALL, NOW))
    assert list(metrics["muster_ready"]) == ['group="a\\"b\\\\c\\nd é"']


def test_numbers_count_what_they_say() -> None:
    record = RestartRecord(aborts=(NOW - 4000, NOW - 30, NOW - 20), restarts=1_234_567)
    ranks = {**ALL.ranks, 3: replace(ALL.ranks[3], strikes=1, proof=NOW - 31.25)}
    metrics = read(status.prometheus(CONFIG, state(RUN, record, ready_at=NOW), replace(ALL, ranks=ranks), NOW))
    assert metrics["muster_restarts_total"] == {'group="kimi-k2"': 1_234_567.0}
    assert metrics["muster_aborts_in_window"] == {'group="kimi-k2"': 2.0}
    assert metrics["muster_canary_strikes"]['group="kimi-k2",dp_rank="3"'] == 1.0
    assert metrics["muster_proof_age_seconds"]['group="kimi-k2",dp_rank="3"'] == pytest.approx(31.25, abs=0.1)


def test_what_blocks_a_host_is_one_word() -> None:
    heard = Report("h1", "kimi-k2", "d", "e", "i", 1, blocked="fatal Xid: [ 60.0] NVRM: Xid 79; reboot the host")
    late = replace(heard, host="h0", blocked="port 8000 on 0.0.0.0 is taken; find its owner")
    peers = {
        "h0": Peer(report=late, heard=NOW - CONFIG.settings.silence_timeout - 1),
        "h1": Peer(report=heard, heard=NOW - 1),
    }
    metrics = read(status.prometheus(CONFIG, state(GATHER, peers=peers), None, NOW))
    assert metrics["muster_member_blocked"] == {'group="kimi-k2",host="h1",cause="xid"': 1.0}
    refused = {**peers, "h0": Peer(refused="h0 carries plan 0123, the head h1 carries 4567; run the deploy")}
    metrics = read(status.prometheus(CONFIG, state(GATHER, peers=refused), None, NOW))
    assert metrics["muster_member_blocked"]['group="kimi-k2",host="h0",cause="plan"'] == 1.0


def test_alerts_find_the_budget_and_the_streak() -> None:
    metrics = read(status.prometheus(CONFIG, state(GATHER, ABORTED), None, NOW))
    assert metrics["muster_restart_budget"] == {'group="kimi-k2"': float(CONFIG.settings.budget)}
    assert metrics["muster_failures_in_a_row"] == {'group="kimi-k2"': 2.0}
    assert metrics["muster_phase_seconds"] == {'group="kimi-k2"': 100.0}


def test_daemons_that_keep_weights_are_ready_without_an_api_and_stopped_with_their_engine() -> None:
    running = state(RUN, ready_at=NOW - 1, has_api=False)
    assert status.is_ready(running, None, NOW)
    waiting = state(GATHER, has_api=False)
    assert status.phase(waiting, NOW) == "gather"
    head = waiting.group.head
    said = "stopped by an operator; weights are loaded again when g is resumed"
    held = Report(head, "g-weights", "key", "0.33.0", "i", 1, blocked=said)
    waiting = replace(waiting, peers={**waiting.peers, head: Peer(report=held)})
    assert status.phase(waiting, NOW) == "stopped"
