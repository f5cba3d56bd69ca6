"""Events: what each step of a guard tells, as entries of the journal that nobody's text can forge or flood."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.guard import events, head_core, restart_policy
from muster.guard.event_log import EventLog, datagram
from muster.guard.events import Event
from muster.guard.head_core import Command, HeadEvent, HeadState, Ready, Stalled, Tick
from muster.guard.member_core import NOT_CHECKED
from muster.guard.messages import DRAIN, GATHER, RUN, Failure, Report
from muster.guard.restart_policy import RestartRecord
from tests.guard.test_status import CONFIG, NOW, state

GENERATION = "g" * 32


def told(head: HeadState, *happened: HeadEvent, at: float = NOW) -> list[tuple[str, str]]:
    """Kind and text of what the head tells over some steps."""
    found: list[Event] = []
    for event in happened:
        after, _ = head_core.step(head, event, at)
        by = event.by if isinstance(event, Command) else ""
        found += events.of_head(head, after, by)
        head = after
    assert {event.generation for event in found} <= {GENERATION}
    return [(event.kind, event.text) for event in found]


SERVING = replace(
    state(RUN, ready_at=NOW - 50), peers={host: replace(peer, heard=NOW) for host, peer in state(RUN).peers.items()}
)


def test_the_head_tells_when_every_rank_has_answered() -> None:
    head = replace(SERVING, ready_at=None, since=NOW - 42)
    assert told(head, Ready(), Ready()) == [("ready", "every DP rank has answered, 42 s after the start")]


def test_the_head_tells_what_weights_are_loaded_with_and_with_what_no_more() -> None:
    hosts = {"h0": "auto=91.2 instanttensor=24", "h1": "auto=80 instanttensor=20.4"}
    before = replace(state(GATHER), loaders=("instanttensor",))
    for host, loads in hosts.items():
        for generation in ("", GENERATION):
            report = Report(host, "kimi-k2", "4b1d", "0.32.0", "i", int(bool(generation)), generation, loads=loads)
            last, (before, _) = before, head_core.step(before, report, NOW)
    (event,) = events.of_head(last, before)
    assert (event.kind, event.text) == ("loader", "weights are loaded by instanttensor: 24 s expected, auto 91 s")
    assert told(before, Stalled("no progress")) == [
        ("restart", "the generation ends: h0: no progress"),
        ("loader", "instanttensor is not taken again: the start with it failed; muster resume lifts that"),
    ]
    assert [kind for kind, _ in told(before, Ready(), Stalled("no progress"))] == ["ready", "restart"]


def test_a_failure_ends_a_generation_and_is_named_with_its_host() -> None:
    assert told(SERVING, Stalled("no progress of DP rank 1 for 120 s"), Tick()) == [
        ("restart", "the generation ends: h0: no progress of DP rank 1 for 120 s")
    ]
    assert told(SERVING, Tick(), at=NOW + 16)[0][1].startswith("the generation ends: h0: silent for 15 s")


def test_the_failure_that_spends_the_budget_holds_the_group() -> None:
    head = replace(SERVING, record=RestartRecord(aborts=tuple(NOW - n for n in range(6, 0, -1)), restarts=6))
    assert [kind for kind, _ in told(head, Stalled("stalled"))] == ["restart", "hold"]


@pytest.mark.parametrize("drain", [0.0, 30.0])
def test_a_stop_is_a_hold_and_no_restart(drain: float) -> None:
    head = replace(SERVING, settings=replace(SERVING.settings, drain_seconds=drain))
    assert told(head, Command("stop", "ann@desk"), Command("stop", "ann@desk")) == [("hold", "stopped by ann@desk")]
    drained = replace(head, phase=DRAIN, reason="stopped by an operator", record=RestartRecord(held="stopped"))
    assert told(drained, Tick(), at=NOW + 140) == []


def test_resume_and_restart_by_an_operator() -> None:
    held = state(head_core.HELD, RestartRecord(held="stopped", held_by="ann@desk"))
    assert told(held, Command("resume", "bob@desk")) == [("resume", "resumed by bob@desk")]
    assert told(state(GATHER), Command("resume")) == []
    at_once = replace(SERVING, settings=replace(SERVING.settings, drain_seconds=0.0))
    assert told(at_once, Command("restart", "bob@desk")) == [
        ("restart", "the generation ends on purpose: restarted by an operator (bob@desk)")
    ]


def test_a_head_whose_guard_died_tells_of_it_in_its_next_life() -> None:
    before = RestartRecord(boot="b", running="old")
    ended = Failure("h0", "the head's guard ended without a word (watchdog killed KILL)", at=NOW)
    after = restart_policy.restore(before, "b", ended, CONFIG.settings, NOW)
    (event,) = events.of_records(before, after)
    assert (event.kind, event.cause, event.generation) == ("restart", "h0", "old")
    assert events.of_records(before, restart_policy.restore(before, "another boot", ended, CONFIG.settings, NOW)) == []


def test_what_blocks_a_host_is_told_once() -> None:
    def kinds(*verdicts: str) -> list[str]:
        pairs = zip((NOT_CHECKED, *verdicts), verdicts, strict=False)
        return [event.kind for before, after in pairs for event in events.of_checks(before, after)]

    assert kinds("", "", "") == []
    assert kinds("0.1 GiB free", "0.12 GiB free", "0.2 GiB free", "", "") == ["block", "unblock"]
    assert kinds("0.1 GiB free", "port 8000 is taken") == ["block", "block"]


@pytest.mark.parametrize(
    ("event", "urgent"),
    [
        (events.started(GENERATION), False),
        (events.failed(Failure("h1", "vllm was killed by SIGKILL", process="vllm"), GENERATION), True),
        (Event(events.RESTART, "", cause="h1"), True),
        (Event(events.RESTART, ""), False),
        (Event(events.HOLD, "", by="ann@desk"), False),
        (Event(events.HOLD, ""), True),
        (Event(events.BLOCK, ""), True),
        (Event(events.UNBLOCK, ""), False),
        (Event(events.RESUME, ""), False),
    ],
)
def test_what_somebody_may_have_to_act_on_has_the_priority_of_a_warning(event: Event, urgent: bool) -> None:
    assert events.fields(event, "g", "h1", "4b1d")["PRIORITY"] == ("4" if urgent else "6")


@given(st.lists(st.text(), min_size=7, max_size=7))
def test_no_text_makes_another_field_or_a_long_entry(texts: Sequence[str]) -> None:
    entry = events.fields(Event("failure", *texts[:5]), *texts[4:])
    plain = events.fields(Event("failure", *["x"] * 5), *["x"] * 3)
    lines = datagram(entry).decode().splitlines()
    assert set(entry) <= set(plain)
    assert [line.partition("=")[0] for line in datagram(entry).decode()[:-1].split("\n")] == list(entry)
    assert len(lines) == len(entry)
    assert len(datagram(events.fields(Event("failure", *["é\n" * 9000] * 5), *["é" * 9000] * 3))) < 16_000


def test_an_entry_reaches_the_journals_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        log = EventLog("kimi-k2", "h1", "4b1d", printed.append, str(tmp_path / "socket"))
        log.write(events.failed(Failure("", "vllm\nwas killed\x1b[31m", process="vllm"), GENERATION))
        entry = dict(line.split("=", 1) for line in journal.recv(65536).decode().splitlines())
    assert entry == {
        "MESSAGE": "muster: vllm: vllm was killed",
        "PRIORITY": "4",
        "MUSTER_EVENT": "failure",
        "MUSTER_GROUP": "kimi-k2",
        "MUSTER_HOST": "h1",
        "MUSTER_PLAN": "4b1d",
        "MUSTER_GENERATION": GENERATION,
        "MUSTER_PROCESS": "vllm",
        "SYSLOG_IDENTIFIER": "muster",
    }
    # Its socket is closed now: the line is printed instead.
    log.write(events.started(GENERATION))
    assert printed == [f"starting generation {GENERATION}"]


def test_outside_systemd_an_event_is_a_printed_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    EventLog("g", "h", "p", printed.append, str(tmp_path / "socket")).write(events.started("a"))
    assert printed == ["starting generation a"]
