"""Backoff, budget and holds, and what of them survives a guard or a boot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from muster.guard import restart_policy
from muster.guard.group_settings import Settings
from muster.guard.messages import Failure

SETTINGS = Settings()


def test_a_first_failure_starts_at_once_and_the_backoff_doubles_up_to_its_limit_and_clears() -> None:
    kept, pauses = restart_policy.RestartRecord(), []
    settings = replace(SETTINGS, budget=100)
    for at in range(8):
        kept = restart_policy.after_abort(kept, Failure("a", "x"), settings, float(at))
        pauses.append(max(restart_policy.starts_after(kept, settings) - at, 0))
    assert pauses == [0, 5, 10, 20, 40, 80, 160, 300]
    assert restart_policy.starts_after(restart_policy.after_healthy_run(kept), settings) == float("-inf")


def test_seven_aborts_in_an_hour_fail_the_group_until_resumed() -> None:
    kept = restart_policy.RestartRecord()
    for at in (0.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3599.0):
        assert kept.held == ""
        kept = restart_policy.after_abort(kept, Failure("a", "x"), SETTINGS, at)
    assert kept.held == "failed"
    assert restart_policy.lift_hold(kept) == replace(kept, held="", aborts=(), streak=0)


def test_six_aborts_an_hour_are_forever_within_the_budget() -> None:
    kept = restart_policy.RestartRecord()
    for number in range(100):
        kept = restart_policy.after_abort(kept, Failure("a", "x"), SETTINGS, number * 601.0)
    assert kept.held == ""


def test_the_record_survives_the_guard_but_times_do_not_survive_the_boot() -> None:
    ended = Failure("a", "the head's guard died")
    kept = replace(restart_policy.RestartRecord(boot="one"), running="g1")
    again = restart_policy.restore(kept, "one", ended, SETTINGS, 10.0)
    assert (again.aborts, again.running, again.failures) == ((10.0,), "", (replace(ended, generation="g1"),))
    assert restart_policy.restore(
        replace(again, held="stopped"), "two", ended, SETTINGS, 5.0
    ) == restart_policy.RestartRecord(boot="two", held="stopped", failures=(replace(ended, generation="g1", at=5.0),))
    assert restart_policy.from_wire(restart_policy.to_wire(again)) == again


def test_a_reboot_keeps_who_stopped_the_group() -> None:
    kept = restart_policy.stopped(restart_policy.RestartRecord(boot="one"), "ann@desk", 1.7e9)
    again = restart_policy.restore(kept, "two", Failure("a", "x"), SETTINGS, 5.0)
    assert (again.held, again.held_by, again.held_at) == ("stopped", "ann@desk", 1.7e9)


def test_a_record_of_an_earlier_guard_is_read_and_one_out_of_bounds_is_none() -> None:
    kept = replace(restart_policy.RestartRecord(held="stopped"), failures=(Failure("a", "x"),))
    old = restart_policy.to_wire(kept)
    for name in ("held_by", "held_at"):
        del old[name]
    old["failures"] = [{key: value for key, value in old["failures"][0].items() if key != "digest"}]
    assert restart_policy.from_wire(old) == kept
    for change in (
        {"held_by": "x" * 300},
        {"held_by": 1},
        {"held_at": -1},
        {"held_at": float("nan")},
        {"held_at": "1"},
    ):
        with pytest.raises(ValueError, match="out of bounds"):
            restart_policy.from_wire({**restart_policy.to_wire(kept), **change})


def test_a_guard_that_died_during_a_start_leaves_its_loader_out() -> None:
    ended = Failure("a", "the head's guard died")
    begun = restart_policy.begun(restart_policy.RestartRecord(boot="one"), "g1", "instanttensor")
    again = restart_policy.restore(begun, "one", ended, SETTINGS, 10.0)
    assert (again.unfit, again.loading) == (("instanttensor",), "")
    assert restart_policy.restore(replace(begun, loading=""), "one", ended, SETTINGS, 10.0).unfit == ()
    assert restart_policy.from_wire(restart_policy.to_wire(again)) == again
    assert restart_policy.restore(again, "two", ended, SETTINGS, 5.0).unfit == ()
    assert restart_policy.lift_hold(again).unfit == ()


def test_loaders_in_a_record_are_texts_within_bounds() -> None:
    kept = restart_policy.to_wire(restart_policy.RestartRecord(unfit=("instanttensor",), loading="other"))
    old = {name: value for name, value in kept.items() if name not in ("unfit", "loading")}
    assert restart_policy.from_wire(old) == restart_policy.RestartRecord()
    assert len(restart_policy.from_wire({**kept, "unfit": ["x"] * 1000}).unfit) == restart_policy.KEEP
    for change in ({"unfit": "instanttensor"}, {"unfit": [1]}, {"unfit": ["x" * 300]}, {"loading": 1}):
        with pytest.raises(ValueError, match=r"out of bounds|is no list"):
            restart_policy.from_wire({**kept, **change})
