"""Single decisions of the core, and the fault matrix's bounds in simulated time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from muster.guard import head_core, member_core, restart_policy
from muster.guard.group_settings import Group, Member, Settings
from muster.guard.messages import Failure, Report, View

from .world import World

SETTINGS = Settings()
GROUP = Group("g", "plan-1", "0.32.0", "a", (Member("a", "", 0, (0,)), Member("b", "", 1, (1,))))


def report(name: str, **change: object) -> Report:
    base = Report(name, "g", "plan-1", "0.32.0", f"{name}-1", seq=1, generation="g1")
    return replace(base, **change)  # type: ignore[arg-type]


def joined(*reports: Report) -> head_core.HeadState:
    """A head that has heard these, each after the hello that taught it the generation."""
    state = head_core.start(GROUP, SETTINGS, "g1", restart_policy.Memory(), 0.0)
    for each in reports:
        state, _ = head_core.step(state, replace(each, generation="", seq=0), 0.0)
        state, _ = head_core.step(state, each, 0.0)
    return state


def running() -> World:
    world = World(3, 1)
    world.settle(60.0)
    return world


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
    assert head_core.lacks(state, 0.0) == {"b": reason}


def test_a_silent_member_is_not_counted_in() -> None:
    state = joined(report("a"))
    state, _ = head_core.step(state, report("b", generation="", seq=0), 0.0)
    state, _ = head_core.step(state, report("b"), 10.0)
    assert head_core.lacks(state, 10.0) == {"a": "silent"}


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
    assert [type(action) for action in actions] == [head_core.Remember, head_core.Tell, head_core.Exit, head_core.Reply]
    state, _ = head_core.step(state, report("a", seq=2, child="ended", failure=Failure("a", "vllm ended")), 51.0)
    (failure,) = state.memory.failures
    assert failure == replace(first, generation="g1", at=50.0)


def test_backoff_doubles_up_to_its_limit_and_clears() -> None:
    kept, pauses = restart_policy.Memory(), []
    settings = replace(SETTINGS, budget=100)
    for at in range(8):
        kept = restart_policy.aborted(kept, Failure("a", "x"), settings, float(at))
        pauses.append(restart_policy.starts_after(kept, settings) - at)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    assert restart_policy.starts_after(restart_policy.healthy(kept), settings) == float("-inf")


def test_seven_aborts_in_an_hour_fail_the_group_until_resumed() -> None:
    kept = restart_policy.Memory()
    for at in (0.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3599.0):
        assert kept.held == ""
        kept = restart_policy.aborted(kept, Failure("a", "x"), SETTINGS, at)
    assert kept.held == "failed"
    assert restart_policy.forgiven(kept) == replace(kept, held="", aborts=(), streak=0)


def test_six_aborts_an_hour_are_forever_within_the_budget() -> None:
    kept = restart_policy.Memory()
    for number in range(100):
        kept = restart_policy.aborted(kept, Failure("a", "x"), SETTINGS, number * 601.0)
    assert kept.held == ""


def test_memory_survives_the_guard_but_times_do_not_survive_the_boot() -> None:
    ended = Failure("a", "the head's guard died")
    kept = replace(restart_policy.Memory(boot="one"), running="g1")
    again = restart_policy.awake(kept, "one", ended, SETTINGS, 10.0)
    assert (again.aborts, again.running, again.failures) == ((10.0,), "", (replace(ended, generation="g1"),))
    assert restart_policy.awake(replace(again, held="stopped"), "two", ended, SETTINGS, 5.0) == restart_policy.Memory(
        boot="two", held="stopped", failures=(replace(ended, generation="g1", at=5.0),)
    )
    assert restart_policy.from_wire(restart_policy.to_wire(again)) == again


def test_deliberate_restarts_cost_no_budget() -> None:
    world = running()
    for _ in range(12):
        world.verb("restart")
        world.advance(60.0)
        world.settle(60.0)
    guard = world.hosts["h0"].guard
    assert guard is not None
    assert guard.head is not None
    assert (guard.head.memory.restarts, guard.head.memory.held) == (0, "")


def test_stopping_a_unit_drains_and_costs_no_budget() -> None:
    world = running()
    world.leave("h2")
    world.advance(90.0)
    world.settle(60.0)
    assert world.hosts["h0"].memory.restarts == 0


def test_a_stopped_group_stays_stopped_through_a_reboot() -> None:
    world = running()
    world.verb("stop")
    world.advance(60.0)
    world.reboot("h0", 10.0)
    world.advance(120.0)
    assert not any(host.children for host in world.hosts.values())
    world.verb("resume")
    world.settle(30.0)


def test_a_new_plan_restarts_waiting_guards_by_itself() -> None:
    world = running()
    world.hosts["h1"].digest = "plan-2"
    world.advance(60.0)
    assert world.running(), "a running group is left alone"
    for host in world.hosts.values():
        host.digest = "plan-2"
    world.verb("restart")
    world.advance(60.0)
    world.settle(60.0)
    assert {host.guard.digest for host in world.hosts.values() if host.guard} == {"plan-2"}


def test_mixed_plans_never_start() -> None:
    world = World(3, 1)
    world.hosts["h1"].digest = "plan-2"
    world.advance(600.0)
    assert not any(host.children for host in world.hosts.values())
    guard = world.hosts["h0"].guard
    assert guard is not None
    assert guard.head is not None
    assert list(head_core.lacks(guard.head, world.now)) == ["h1"]


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


FAULTS = {
    "a child is killed on the head": (lambda world: world.end_child("h0"), 10.0, 25.0),
    "a child is killed on a member": (lambda world: world.end_child("h1"), 10.0, 25.0),
    "a guard is killed": (lambda world: world.kill_guard("h1"), 25.0, 35.0),
    "the head's guard is killed": (lambda world: world.kill_guard("h0"), 25.0, 35.0),
    "a guard is stopped": (lambda world: world.pause_guard("h1"), 45.0, 60.0),
    "the head's guard is stopped": (lambda world: world.pause_guard("h0"), 45.0, 60.0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bounds_of_the_fault_matrix(name: str) -> None:
    """In simulated time; a stopped guard's fence is up to 10 s here, where systemd needs 0.1 s."""
    fault, gone, started = FAULTS[name]
    for seed in range(20):
        world = World(3, seed)
        world.settle(60.0)
        old = world.hosts["h0"].children[0]
        begin = world.now
        fault(world)
        while any(old in host.children for host in world.hosts.values()):
            world.advance(0.5)
        assert world.now - begin <= gone
        while not all(host.children for host in world.hosts.values()):
            world.advance(0.5)
        assert world.now - begin <= started


@pytest.mark.parametrize("pairs", [{("h1", "h0")}, {("h0", "h1")}, {("h0", "h1"), ("h1", "h0")}])
def test_a_partition_empties_both_sides_and_heals(pairs: set[tuple[str, str]]) -> None:
    world = running()
    old = world.hosts["h0"].children[0]
    world.cut = pairs
    world.advance(25.0)
    assert not any(old in host.children for host in world.hosts.values())
    world.advance(30.0)
    world.cut = set()
    world.advance(15.0)
    assert all(host.children for host in world.hosts.values())


def test_all_hosts_at_once_head_last() -> None:
    world = World(5, 3)
    world.reboot("h0", 100.0)
    world.advance(110.0)
    assert all(host.children for host in world.hosts.values())
