"""Single decisions of a member."""

from __future__ import annotations

from muster.guard import member_core
from muster.guard.messages import Failure, View

from .test_head_core import GROUP, SETTINGS


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
