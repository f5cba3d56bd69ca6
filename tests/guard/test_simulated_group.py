"""A simulated group: operators, plans and partitions, and the fault matrix's bounds in simulated time."""

from __future__ import annotations

import pytest

from muster.guard import head_core

from .world import World


def running() -> World:
    world = World(3, 1)
    world.settle(60.0)
    return world


def test_deliberate_restarts_cost_no_budget() -> None:
    world = running()
    for _ in range(12):
        world.command("restart")
        world.advance(60.0)
        world.settle(60.0)
    guard = world.hosts["h0"].guard
    assert guard is not None
    assert guard.head is not None
    assert (guard.head.record.restarts, guard.head.record.held) == (0, "")


def test_stopping_a_unit_drains_and_costs_no_budget() -> None:
    world = running()
    world.leave("h2")
    world.advance(90.0)
    world.settle(60.0)
    assert world.hosts["h0"].record.restarts == 0


def test_a_stopped_group_stays_stopped_through_a_reboot() -> None:
    world = running()
    world.command("stop")
    world.advance(60.0)
    world.reboot("h0", 10.0)
    world.advance(120.0)
    assert not any(host.children for host in world.hosts.values())
    world.command("resume")
    world.settle(30.0)


def test_a_new_plan_restarts_waiting_guards_by_itself() -> None:
    world = running()
    world.hosts["h1"].digest = "plan-2"
    world.advance(60.0)
    assert world.running(), "a running group is left alone"
    for host in world.hosts.values():
        host.digest = "plan-2"
    world.command("restart")
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
    assert list(head_core.blockers(guard.head, world.now)) == ["h1"]


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
