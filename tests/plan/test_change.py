"""A change as hosts record it, and what a newcomer makes of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.plan import change as changes
from muster.plan.change import Change, Found, Settlement

CHANGE = Change("1", "g", "deploy", "ann", "desk", "2026-11-26T12:03:11Z", "aaa", "bbb", "stopping")


def states(**found: Found) -> dict[str, Found]:
    return found


def test_a_record_survives_its_way_to_a_host_and_back() -> None:
    assert changes.from_wire(CHANGE.to_wire()) == CHANGE


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=8))))
def test_what_is_no_record_is_none(data: dict[str, Any]) -> None:
    assert changes.from_wire(data) is None


def test_the_second_operator_is_told_whose_change_it_is() -> None:
    with pytest.raises(Refusal) as refused:
        changes.require_free("g", states(h0=Found(), h1=Found(holder=CHANGE, locked=True)))
    assert refused.value.found == (
        "h1: ann@desk has been changing group g since 12:03:11 UTC (plan aaa -> bbb, phase stopping)"
    )


def test_a_lock_that_says_nothing_is_a_lock() -> None:
    with pytest.raises(Refusal, match="h0: another change of group g holds its lock"):
        changes.require_free("g", states(h0=Found(locked=True)))


def test_a_dead_holders_record_does_not_refuse() -> None:
    changes.require_free("g", states(h0=Found(record=CHANGE, installed="aaa")))


@pytest.mark.parametrize(
    ("installed", "where"),
    [(("aaa", "aaa"), "before"), (("bbb", "bbb"), "after"), (("aaa", "bbb"), "mixed"), (("", ""), "before")],
)
def test_a_cut_change_says_which_files_are_in_place(installed: tuple[str, str], where: str) -> None:
    cut = changes.unfinished(states(h0=Found(record=CHANGE, installed=installed[0]), h1=Found(installed=installed[1])))
    assert cut is not None
    assert (cut.where, cut.hosts) == (where, ("h0",))
    assert "plan aaa -> bbb, by ann@desk at 2026-11-26T12:03:11Z, was cut in phase stopping" in cut.sentence


def test_the_latest_phase_of_the_newest_change_counts() -> None:
    older = dataclasses.replace(CHANGE, id="0", since="2026-11-25T12:03:11Z", phase="started")
    cut = changes.unfinished(
        states(h0=Found(record=CHANGE), h1=Found(record=CHANGE.at("committing")), h2=Found(record=older))
    )
    assert cut is not None
    assert (cut.change.phase, cut.hosts) == ("committing", ("h0", "h1"))


@pytest.mark.parametrize(
    ("digest", "words"),
    [("bbb", "this run finishes it"), ("aaa", "this run takes it back"), ("ccc", "this run replaces it")],
)
def test_what_the_next_run_does_to_it(digest: str, words: str) -> None:
    cut = changes.unfinished(states(h0=Found(record=CHANGE)))
    assert cut is not None
    assert cut.next_step(digest) == words


def test_a_removal_that_was_cut_says_what_is_left_and_how_it_ends() -> None:
    removal = dataclasses.replace(CHANGE, command="remove", after="", phase="committing")
    cut = changes.unfinished(states(h0=Found(record=removal, installed="aaa"), h1=Found(record=removal)))
    assert cut is not None
    assert "removal of plan aaa, by ann@desk" in cut.sentence
    assert "some hosts have the group's files, some do not" in cut.sentence
    assert (cut.next_step(""), cut.next_step("aaa")) == ("this run finishes it", "this run takes it back")
    assert cut.fix == "run the removal again to finish it, or the deploy to have the group back"


def test_an_exchange_that_was_cut_goes_forward_where_a_host_has_begun_and_back_where_none_has() -> None:
    waits = CHANGE.at("committing")
    begun = dataclasses.replace(waits, exchanging="yes")
    stopping = states(h0=Found(record=CHANGE), h1=Found(record=CHANGE))
    assert changes.settlement(stopping) == Settlement((), ())
    assert changes.settlement(states(h0=Found(record=CHANGE), h1=Found(record=waits))) == Settlement((), ("h1",))
    assert changes.settlement(states(h0=Found(record=waits), h1=Found(record=begun))) == Settlement(("h0", "h1"), ())
    committed = states(h0=Found(record=CHANGE.at("committed")), h1=Found(record=waits), h2=Found())
    assert changes.settlement(committed) == Settlement(("h1",), ())


def test_a_change_that_is_turned_back_on_some_hosts_alone_is_not_begun_there() -> None:
    turned = dataclasses.replace(CHANGE, command="rollback", before="bbb", after="aaa", phase="committing")
    found = states(h0=Found(record=CHANGE.at("committed")), h1=Found(record=turned))
    assert changes.settlement(found) == Settlement((), ("h1",))


def test_a_plan_made_before_another_change_came_is_no_longer_good() -> None:
    before = states(h0=Found(installed="aaa"), h1=Found(installed="aaa"))
    assert changes.changed_since(before, before) == []
    assert changes.changed_since(before, states(h0=Found(installed="aaa"), h1=Found(installed="bbb"))) == ["h1"]
    assert changes.changed_since(before, states(h0=Found(installed="aaa", record=CHANGE), h1=before["h1"])) == ["h0"]
