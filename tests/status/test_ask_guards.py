"""Who is asked, and who again, where hosts answer, are silent, or cannot be reached; the sessions are given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from muster.hosts.connect import Connected
from muster.status import ask_guards
from muster.status.ask_guards import Guards
from tests.status.test_group_status import HEAD, OTHER, PLAN


class Hosts:
    """Two hosts, with what each says now, or why it cannot be reached."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.asked, self.connected = 100.0, list[str](), list[str]()
        self.says: dict[str, dict[str, Any]] = {HEAD: {"answer": 1}, OTHER: {"answer": 2}}
        self.away: dict[str, str] = {}
        self.hosts = {name: SimpleNamespace(name=name, disconnect=lambda: None) for name in PLAN.hosts}
        monkeypatch.setattr(ask_guards.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(ask_guards, "hosts_of", lambda state: self.hosts)
        monkeypatch.setattr(ask_guards, "run_program", self.run)
        monkeypatch.setattr(ask_guards, "connect", self.connect)

    def run(self, state: Any, host: Any, program: str, request: Any, *, seconds: float) -> dict[str, Any]:
        self.asked.append(f"{host.name} {seconds:g}")
        return self.says[host.name]

    def connect(self, state: Any, names: set[str]) -> dict[str, str]:
        self.connected += sorted(names)
        return {name: why for name, why in self.away.items() if name in names}

    def guards(self, unreached: dict[str, str]) -> Guards:
        return Guards(PLAN, Connected(None, unreached))  # type: ignore[arg-type]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    return Hosts(monkeypatch)


def test_a_silent_or_missing_host_is_tried_again_with_every_question(hosts: Hosts) -> None:
    guards = hosts.guards({OTHER: "off"})
    hosts.says[HEAD] = {"error": "timed out"}
    assert guards.ask("status") == {HEAD: {"error": "timed out"}, OTHER: {"error": "off"}}
    assert hosts.connected == []
    hosts.says[HEAD] = {"answer": 1}
    assert guards.ask("status") == {HEAD: {"answer": 1}, OTHER: {"answer": 2}}
    assert hosts.connected == sorted([HEAD, OTHER])
    guards.ask("status")
    assert len(hosts.connected) == 2
    assert hosts.asked == [f"{HEAD} 30", f"{HEAD} 30", f"{OTHER} 30", f"{HEAD} 30", f"{OTHER} 30"]


def test_who_asks_all_the_time_is_not_held_up_by_a_host_that_is_off(hosts: Hosts) -> None:
    guards = hosts.guards({})
    guards.be_brief(5.0, 20.0)
    hosts.says[OTHER] = {"error": "timed out"}
    hosts.away = {OTHER: "no route"}
    for _ in range(4):
        assert guards.ask("status") == {HEAD: {"answer": 1}, OTHER: {"error": "timed out"}}
        hosts.now += 1
    assert (hosts.asked.count(f"{OTHER} 5"), hosts.connected) == (1, [])
    hosts.now += 20
    assert guards.ask("status")[OTHER] == {"error": "no route"}
    assert guards.ask("status")[OTHER] == {"error": "no route"}
    assert hosts.connected == [OTHER]
    hosts.says[OTHER], hosts.away = {"answer": 2}, {}
    hosts.now += 20
    assert guards.ask("status")[OTHER] == {"answer": 2}
