"""Events of several hosts in one order."""

from __future__ import annotations

from typing import Any

from muster.guard import events
from muster.guard.messages import Failure
from muster.status.host_events import FIELDS, UNIT, merged


def line(at: float, event: events.Event, **change: str) -> dict[str, Any]:
    """One line of a journal as the host program returns it."""
    entry = events.fields(event, "kimi-k2", "h0", "4b1d")
    fields = {name: entry.get(name, "") for name in FIELDS} | {UNIT: "muster-kimi-k2.service"}
    return {"at": at, "text": entry["MESSAGE"], "fields": {**fields, **change}}


KILLED = events.failed(Failure("", "vllm was killed by SIGKILL", process="vllm"), "g1")


def test_events_of_all_hosts_are_in_the_order_of_time() -> None:
    answers = {
        "a": {"lines": [line(10.0, events.started("g1")), line(30.5, events.started("g2"))]},
        "b": {"lines": [line(20.0, KILLED)]},
        "c": {"error": "timed out"},
    }
    found = merged(answers)
    assert [(event.at, event.host, event.event) for event in found] == [
        (10.0, "a", "start"),
        (20.0, "b", "failure"),
        (30.5, "a", "start"),
    ]
    assert found[1].as_json() == {
        "at": "1970-01-01T00:00:20Z",
        "host": "b",
        "event": "failure",
        "text": "vllm: vllm was killed by SIGKILL",
        "group": "kimi-k2",
        "plan": "4b1d",
        "generation": "g1",
        "cause": "",
        "process": "vllm",
        "by": "",
    }


def test_what_is_no_event_of_a_guard_is_left_out() -> None:
    strange = [
        line(1.0, KILLED, MUSTER_EVENT="reboot"),
        {"at": 2.0, "text": "no fields"},
        line(3.0, KILLED, _SYSTEMD_UNIT="cron.service"),
        line(4.0, KILLED, MUSTER_GROUP="another"),
    ]
    assert merged({"a": {"lines": strange}}) == []


def test_a_text_stays_one_line() -> None:
    lines = [{**line(1.0, KILLED), "text": "muster: one\n2026-11-26T00:00:00Z  b  hold"}]
    assert merged({"a": {"lines": lines}})[0].text == "one 2026-11-26T00:00:00Z b hold"
