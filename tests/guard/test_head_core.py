"""Single decisions of the head, the barrier included."""

from __future__ import annotations

from dataclasses import replace

import pytest

from muster.guard import head_core, restart_policy
from muster.guard.group_settings import Group, Member, Settings
from muster.guard.messages import Failure, Report

SETTINGS = Settings()


GROUP = Group("g", "plan-1", "0.32.0", "a", (Member("a", "", 0, (0,)), Member("b", "", 1, (1,))))


def report(name: str, **change: object) -> Report:
    base = Report(name, "g", "plan-1", "0.32.0", f"{name}-1", seq=1, generation="g1")
    return replace(base, **change)  # type: ignore[arg-type]


def joined(*reports: Report) -> head_core.HeadState:
    """A head that has heard these, each after the hello that taught it the generation."""
    state = head_core.start(GROUP, SETTINGS, "g1", restart_policy.RestartRecord(), 0.0)
    for each in reports:
        state, _ = head_core.step(state, replace(each, generation="", seq=0), 0.0)
        state, _ = head_core.step(state, each, 0.0)
    return state


def test_all_joined_runs() -> None:
    assert joined(report("a"), report("b")).phase == "run"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"child": "running"}, "still has a child"),
        ({"blocked": "GPU 0 is missing"}, "blocked: GPU 0 is missing"),
        (
            {"digest": "plan-2"},
            "b carries plan plan-2, the head a carries plan-1; run the deploy on every host",
        ),
        ({"engine": "0.31.0"}, "b has engine 0.31.0, the head a has 0.32.0"),
        ({"generation": "old"}, "not joined yet"),
    ],
)
def test_the_barrier_names_who_is_missing(change: dict[str, object], reason: str) -> None:
    state = joined(report("a"), report("b", **change))
    assert state.phase == "gather"
    assert head_core.blockers(state, 0.0) == {"b": reason}


def test_a_silent_member_is_not_counted_in() -> None:
    state = joined(report("a"))
    state, _ = head_core.step(state, report("b", generation="", seq=0), 0.0)
    state, _ = head_core.step(state, report("b"), 10.0)
    assert head_core.blockers(state, 10.0) == {"a": "silent"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"group": "other"}, "b belongs to group other; this is g"),
        ({"host": "c"}, "c is no host of group g (a, b); deploy the plan that has it"),
    ],
)
def test_strangers_are_refused_by_name(change: dict[str, object], reason: str) -> None:
    state = joined(report("a"))
    after, actions = head_core.step(state, report("b", **change), 1.0)
    assert after == state
    (reply,) = actions
    assert isinstance(reply, head_core.Reply)
    assert (reply.view.phase, reply.view.reason) == ("refused", reason)


def test_the_first_failure_is_recorded_and_later_ones_are_not() -> None:
    state = joined(report("a"), report("b"))
    first = Failure("b", "vllm was killed by SIGKILL", process="vllm", lines="last words")
    state, actions = head_core.step(state, report("b", seq=2, child="ended", failure=first), 50.0)
    assert [type(action) for action in actions] == [
        head_core.SaveRecord,
        head_core.PushViews,
        head_core.Exit,
        head_core.Reply,
    ]
    state, _ = head_core.step(state, report("a", seq=2, child="ended", failure=Failure("a", "vllm ended")), 51.0)
    (failure,) = state.record.failures
    assert failure == replace(first, generation="g1", at=50.0, digest="plan-1")


def test_the_seconds_of_a_start_are_kept_once_the_group_is_ready() -> None:
    state = joined(report("a"), report("b"))
    ready, actions = head_core.step(state, head_core.Ready(), state.since + 731.5)
    assert actions == (head_core.SaveStart(731.5),)
    assert head_core.step(ready, head_core.Ready(), 1000.0)[1] == ()


def test_a_stop_keeps_who_gave_it_and_when_until_it_is_lifted() -> None:
    state, _ = head_core.step(joined(report("a")), head_core.Command("stop", "ann@desk", 1.7e9), 1.0)
    state, _ = head_core.step(state, head_core.Command("stop", "ben@desk", 1.8e9), 2.0)
    assert (state.record.held, state.record.held_by, state.record.held_at) == ("stopped", "ann@desk", 1.7e9)
    state, _ = head_core.step(state, head_core.Command("resume", "ben@desk", 1.9e9), 3.0)
    assert (state.record.held, state.record.held_by, state.record.held_at) == ("", "", 0.0)


A, B = "auto=90 fast=20 other=40", "auto=80 fast=20 other=30"


def measured(a: str, b: str, record: restart_policy.RestartRecord | None = None) -> head_core.HeadState:
    """A head that runs, whose hosts had these times."""
    state = head_core.start(GROUP, SETTINGS, "g1", record or restart_policy.RestartRecord(), 0.0)
    state = replace(state, loaders=("fast", "other"))
    for each in (report("a", loads=a), report("b", loads=b)):
        state, _ = head_core.step(state, replace(each, generation="", seq=0), 0.0)
        state, _ = head_core.step(state, each, 0.0)
    assert state.phase == "run"
    return state


def failed(state: head_core.HeadState) -> head_core.HeadState:
    lost = report("b", seq=9, child="ended", failure=Failure("b", "vllm was killed by SIGKILL"))
    return head_core.step(state, lost, 5.0)[0]


def test_the_loader_is_chosen_with_the_run_and_stays_for_the_generation() -> None:
    state = measured(A, B)
    assert (state.loader, state.record.loading, state.record.running) == ("fast", "fast", "g1")
    state, actions = head_core.step(state, report("b", seq=2, loads="auto=80 fast=79 other=5"), 1.0)
    (reply,) = actions
    assert isinstance(reply, head_core.Reply)
    assert (reply.view.phase, reply.view.loader) == ("run", "fast")
    assert {view.loader for view in head_core.pushed_views(state).values()} == {"fast"}


@pytest.mark.parametrize(("a", "b"), [(A, ""), ("", ""), (A, "fast=20"), ("auto=22 fast=20", "auto=22 fast=20")])
def test_without_a_gain_that_every_host_has_measured_there_is_none(a: str, b: str) -> None:
    state = measured(a, b)
    assert (state.loader, state.record.loading) == ("", "")
    assert head_core.step(state, head_core.Ready(), 1.0)[1] == (head_core.SaveStart(1.0),)
    assert failed(state).record.unfit == ()


def test_a_loader_with_which_a_start_failed_is_taken_again_after_a_resume_only() -> None:
    first = failed(measured(A, B))
    assert (first.record.unfit, first.record.loading) == (("fast",), "")
    second = measured(A, B, first.record)
    assert second.loader == "other"
    third = failed(second)
    assert third.record.unfit == ("fast", "other")
    assert measured(A, B, restart_policy.after_healthy_run(third.record)).loader == ""
    assert measured(A, B, restart_policy.lift_hold(third.record)).loader == "fast"
    resumed, _ = head_core.step(second, head_core.Command("resume"), 1.0)
    assert failed(resumed).record.unfit == ("other",), "the start that runs keeps its loader"


@pytest.mark.parametrize(("times", "patience"), [("auto=90 fast=20", 900), ("auto=900 fast=200", 2000)])
def test_a_start_with_a_chosen_loader_that_hangs_ends_before_ready_timeout(times: str, patience: float) -> None:
    state = measured(times, times)
    assert (state.loader, state.patience) == ("fast", patience)
    state = replace(state, settings=replace(SETTINGS, silence_timeout=1e6))
    assert head_core.step(state, head_core.Tick(), patience)[0].phase == "run"
    ended, _ = head_core.step(state, head_core.Tick(), patience + 1)
    assert ended.reason == f"a: not ready {patience:g} s after the start with fast"
    assert ended.record.unfit == ("fast",)
    assert measured("auto=90", "auto=90").patience == SETTINGS.ready_timeout


def test_a_failure_while_it_serves_is_not_the_loaders() -> None:
    state, actions = head_core.step(measured(A, B), head_core.Ready(), 30.0)
    assert actions == (head_core.SaveRecord(), head_core.SaveStart(30.0))
    assert state.loader == "fast"
    assert failed(state).record.unfit == ()


def test_a_start_that_ends_on_purpose_is_not_the_loaders_fault() -> None:
    state, _ = head_core.step(measured(A, B), head_core.Command("stop"), 1.0)
    state = failed(state)
    assert (state.phase, state.record.unfit, state.record.loading) == ("abort", (), "")
