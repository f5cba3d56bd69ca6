"""Whichever host asks first does the work; the others get its result, or the same refusal."""

from __future__ import annotations

import gevent
import pytest
from pyinfra.api.exceptions import DeployError
from pyinfra.api.state import State

from muster.errors import Refusal
from muster.hosts.once import OncePerRun
from muster.hosts.run_words import words


def test_hosts_that_ask_at_once_share_one_result() -> None:
    work: OncePerRun[object] = OncePerRun()
    made: list[object] = []

    def make() -> object:
        gevent.sleep(0.01)
        made.append(object())
        return made[-1]

    state = State()
    hosts = [gevent.spawn(work.get, state, "group", make) for _ in range(4)]
    assert {id(host.get()) for host in hosts} == {id(made[0])}
    assert len(made) == 1
    assert work.get(State(), "group", make) is made[1]
    assert work.get(state, "another", make) is made[2]


def test_a_refusal_is_every_hosts_error() -> None:
    work: OncePerRun[None] = OncePerRun()
    state, calls = State(), []

    def make() -> None:
        calls.append(1)
        raise Refusal("no pin", fix="muster pin")

    for _ in range(2):
        with pytest.raises(DeployError, match="no pin"):
            work.get(state, "", make)
    assert len(calls) == 1


def test_an_interrupt_has_its_status_before_hosts_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(words, "say_at_the_end", lambda: order.append("interrupts are ours"))
    OncePerRun[None]().get(State(), "group", lambda: order.append("hosts are asked"))
    assert order == ["interrupts are ours", "hosts are asked"]
