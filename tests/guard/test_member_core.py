"""Single decisions of a member."""

from __future__ import annotations

from typing import Any

from muster.guard import member_core
from muster.guard.messages import Failure, View

from .test_head_core import GROUP, SETTINGS


def joined(**change: Any) -> member_core.MemberState:
    """A member whose checks were good, and that has told the head of times."""
    return member_core.MemberState(
        GROUP, SETTINGS, "b", "b-1", generation="g1", blocked="", loads="auto=90 fast=20", seq=4, **change
    )


def test_it_starts_with_the_loader_that_the_head_says() -> None:
    for loader in ("fast", ""):
        _, actions = member_core.step(joined(), View("b-1", 4, "g1", "run", loader=loader), 1.0)
        assert actions[0] == member_core.Start("g1", loader)


def test_times_are_told_when_they_changed_enough() -> None:
    state, actions = member_core.step(joined(), member_core.Checked("", "auto=92 fast=20.5"), 1.0)
    assert (state.loads, actions) == ("auto=90 fast=20", ())
    state, actions = member_core.step(state, member_core.Checked("Xid 79"), 2.0)
    assert [send.report.loads for send in actions if isinstance(send, member_core.Send)] == ["auto=90 fast=20"]
    state, actions = member_core.step(state, member_core.Checked("Xid 79", "auto=90 fast=22"), 3.0)
    assert [send.report.loads for send in actions if isinstance(send, member_core.Send)] == ["auto=90 fast=22"]
    state, actions = member_core.step(state, member_core.Checked("Xid 79", ""), 4.0)
    assert [send.report.loads for send in actions if isinstance(send, member_core.Send)] == [""]
    assert member_core.step(joined(child="running"), member_core.Checked("", ""), 1.0)[1] == ()


def test_a_dying_member_waits_for_the_head_to_hear_why() -> None:
    state = member_core.MemberState(GROUP, SETTINGS, "b", "b-1", generation="g1", child="running", heard=0.0)
    state, actions = member_core.step(state, member_core.ChildEnded(Failure("b", "killed")), 1.0)
    (send,) = actions
    assert isinstance(send, member_core.Send)
    assert send.report.failure == Failure("b", "killed", generation="g1")
    assert member_core.step(state, member_core.Tick(), 1.5)[1] == ()
    _, heard = member_core.step(state, View("b-1", send.report.seq, "g1", "abort"), 1.6)
    _, unheard = member_core.step(state, member_core.Tick(), 2.5)
    assert heard == unheard == (state.ending,)
