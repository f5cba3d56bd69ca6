"""A change on all hosts of a group: locked everywhere or nowhere, recorded in the order that a cut needs."""

from __future__ import annotations

from typing import Any

import pytest

from muster.deploys.shared import transaction as transactions
from muster.deploys.shared.transaction import Transaction
from muster.plan import change as changes
from muster.plan.change import Change, Found, Phase

CHANGE = Change("1", "g", "deploy", "ann", "desk", "2026-11-26T12:03:11Z", "aaa", "bbb")


class Host:
    """A host whose holder is scripted; what it was told is kept, in the order of all hosts."""

    def __init__(self, name: str, told: list[tuple[str, str]], first: Any, error: str = "") -> None:
        self.name, self.told, self.first, self.error, self.closed = name, told, first, error, False
        self.connector = type("Connector", (), {"client": object()})()
        self.lost = ""

    def next(self) -> Any:
        return self.first

    def ask(self, message: dict[str, str]) -> dict[str, str]:
        self.told.append((self.name, message.get("phase", message["do"])))
        return {"error": self.error} if self.error and message["do"] == "phase" else {}

    def close(self) -> None:
        self.closed = True


FREE = {"state": {"locked": False, "holder": {}, "record": {}, "installed": "aaa"}}


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


def made(monkeypatch: pytest.MonkeyPatch, *hosts: Host) -> Transaction:
    monkeypatch.setattr(transactions, "OpenSession", lambda _state, host, _program, _request: host)
    monkeypatch.setattr(transactions, "hosts_of", lambda _state: {host.name: host for host in hosts})
    names = tuple(host.name for host in hosts)
    return Transaction(CHANGE, names, {name: Found(installed="aaa") for name in names})


def test_the_lock_is_held_on_all_hosts_or_on_none(monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]]) -> None:
    busy = {"busy": CHANGE.at("stopping").to_wire(), "group": "g"}
    hosts = [Host("h0", told, FREE), Host("h1", told, FREE), Host("h2", told, busy)]
    transaction = made(monkeypatch, *hosts)
    errors = transaction.take(None)  # type: ignore[arg-type]
    assert set(errors) == {"h0", "h1", "h2"}
    assert "h2: ann@desk has been changing group g since 12:03:11 UTC (plan aaa -> bbb, phase stopping)" in errors["h0"]
    assert all(host.closed for host in hosts)
    assert transaction.fence("h0") is None


def test_hosts_that_another_change_has_touched_since_the_probe_are_no_longer_as_planned(
    monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]]
) -> None:
    other = {"state": {**FREE["state"], "installed": "ccc"}}
    transaction = made(monkeypatch, Host("h0", told, FREE), Host("h1", told, other))
    assert "h1: another change has come in between" in transaction.take(None)["h0"]  # type: ignore[arg-type]


def test_the_head_is_the_first_to_record_the_stop_and_the_last_to_record_the_exchange(
    monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]]
) -> None:
    transaction = made(monkeypatch, Host("h0", told, FREE), Host("h1", told, FREE))
    assert transaction.take(None) == {}  # type: ignore[arg-type]
    for phase in ("stopping", "committing"):
        assert transaction.record(phase) == {}  # type: ignore[arg-type]
    assert told == [("h0", "stopping"), ("h1", "stopping"), ("h1", "committing"), ("h0", "committing")]
    assert transaction.change.phase == "committing"


def test_a_removal_asks_for_the_groups_of_each_host(
    monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]]
) -> None:
    asked: dict[str, Any] = {}
    hosts = [Host("h0", told, FREE), Host("h1", told, FREE)]
    transaction = made(monkeypatch, *hosts)
    transaction.groups = {"h0": ("f", "g")}

    def opened(_state: Any, host: Host, _program: str, request: dict[str, Any]) -> Host:
        asked[host.name] = request["groups"]
        return host

    monkeypatch.setattr(transactions, "OpenSession", opened)
    assert transaction.take(None) == {}  # type: ignore[arg-type]
    assert asked == {"h0": ["f", "g"], "h1": ["g"]}
    assert transaction.fence("h0") == {"group": "f", "change": CHANGE.id}


@pytest.mark.parametrize("phase", ["committing", "committed"])
def test_the_way_back_is_recorded_by_the_head_of_the_kept_plan_last_and_on_whole_files(
    monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]], phase: Phase
) -> None:
    hosts = [Host("h0", told, FREE), Host("h1", told, FREE)]
    transaction = made(monkeypatch, *hosts)
    transaction.take(None)  # type: ignore[arg-type]
    transaction.record("stopping")
    transaction.record("committing")
    if phase == "committed":
        transaction.record(phase)
    told.clear()
    ways: list[str] = []

    def back(host: str) -> dict[str, Any]:
        ways.append(host)
        return {"kept": "aaa"}

    assert transaction.turn_back("aaa", "h1", back) == {}
    settled = [("h0", "settle"), ("h1", "settle")] if phase == "committing" else []
    assert sorted(told[: len(settled)]) == settled
    assert told[len(settled) :] == [("h0", "turn"), ("h1", "turn")]
    assert ways == ["h0", "h1"]
    change = transaction.change
    assert (change.id, change.command, change.before, change.after) == (CHANGE.id, "rollback", "bbb", "aaa")
    assert transaction.record("committed") == {}
    assert transaction.change.phase == "committed"


@pytest.mark.parametrize(("exchanging", "forward"), [("", False), ("yes", True)])
def test_an_exchange_that_was_cut_is_ended_under_the_lock(
    monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]], exchanging: str, forward: bool
) -> None:
    record = {**CHANGE.at("committing").to_wire(), "id": "0", "exchanging": exchanging}
    cut = {"state": {**FREE["state"], "record": record}}
    asked: list[Any] = []
    hosts = [Host("h0", told, cut), Host("h1", told, cut)]
    transaction = made(monkeypatch, *hosts)
    seen = changes.seen({"h0": cut["state"], "h1": cut["state"]})
    transaction.found = seen
    for host in hosts:
        monkeypatch.setattr(host, "ask", lambda message: asked.append(message) or {})
    assert transaction.take(None) == {}  # type: ignore[arg-type]
    assert asked == [{"do": "settle", "forward": forward}] * 2
    assert transaction.ended_exchange
    assert "not touched" not in transaction.sentence
    assert "unfinished: plan aaa -> bbb; this run has ended its exchange of files" in transaction.sentence


def test_a_host_that_cannot_end_the_exchange_is_named_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]]
) -> None:
    record = {**CHANGE.at("committing").to_wire(), "id": "0", "exchanging": "yes"}
    cut = {"state": {**FREE["state"], "record": record}}
    hosts = [Host("h0", told, cut), Host("h1", told, cut)]
    transaction = made(monkeypatch, *hosts)
    transaction.found = changes.seen({host.name: cut["state"] for host in hosts})
    monkeypatch.setattr(hosts[1], "ask", lambda _message: {"error": "No space left on device"})
    warned: list[str] = []
    monkeypatch.setattr(transactions.logger, "warning", warned.append)
    assert transaction.take(None) == {}  # type: ignore[arg-type]
    assert told == [("h0", "settle")]
    assert warned == ["h1: the files of the change that was cut cannot be put in place: No space left on device"]


def test_a_stop_that_a_host_cannot_record_leaves_no_record_anywhere(
    monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]]
) -> None:
    transaction = made(monkeypatch, Host("h0", told, FREE), Host("h1", told, FREE, error="no space left"))
    transaction.take(None)  # type: ignore[arg-type]
    assert transaction.record("stopping") == {"h1": "no space left"}
    assert told[-2:] == [("h0", "finish"), ("h1", "finish")]
    assert transaction.change.phase == "prepared"
    assert "was not touched" in transaction.sentence


def test_ranks_that_a_new_group_stops_are_those_of_the_one_that_it_replaces(
    monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]]
) -> None:
    transaction = made(monkeypatch, Host("h0", told, FREE), Host("h1", told, FREE))
    transaction.replaces = "old"
    transaction.take(None)  # type: ignore[arg-type]
    transaction.record("stopping")
    assert "ranks of group old may be stopped" in transaction.sentence
    transaction.record("committing")
    assert "group old is stopped" in transaction.sentence
    transaction.record("committed")
    assert "group g is starting" in transaction.sentence
