"""Seeded disorder for the simulated group: the same seed gives the same faults."""

from __future__ import annotations

import random
from typing import Any

from muster.guard.group_settings import Settings

from .world import World

BOUND = 120.0
"""Seconds from the end of all faults to a running group: drain 35, silence 15, fence 10, restart 3, load 10, twice at
worst when the fault that ended last left one more restart to come."""


def fault(world: World, dice: random.Random) -> None:
    """One fault out of everything that the world can do."""
    name = dice.choice(world.names)
    other = dice.choice(world.names)
    choice = dice.randrange(17)
    if choice == 0:
        world.kill_guard(name)
    elif choice == 1:
        world.pause_guard(name)
    elif choice == 2:
        world.resume_guard(name)
    elif choice == 3:
        world.end_child(name)
    elif choice == 4:
        world.reboot(name, dice.uniform(5, 60))
    elif choice == 5:
        world.cut.add((name, other))
    elif choice == 6:
        world.cut |= {(name, other), (other, name)}
    elif choice == 7:
        world.cut.clear()
    elif choice == 8:
        world.loss = dice.choice((0.0, 0.1, 0.5))
    elif choice == 9:
        world.duplication = dice.choice((0.0, 0.3))
    elif choice == 10:
        world.delay = dice.choice((0.05, 1.0, 8.0))
        world.stragglers = dice.choice((0.0, 0.1))
    elif choice == 11:
        world.stall()
    elif choice == 12:
        world.command(dice.choice(("stop", "restart", "resume", "resume")))
    elif choice == 13:
        world.leave(name)
    elif choice == 14:
        world.block(name, dice.choice(("", "Xid 79")))
    elif choice == 15:
        world.hosts[name].digest = dice.choice(("plan-1", "plan-2"))
    else:
        world.wall += dice.uniform(-7200, 7200)


def episode(seed: int, core: Any = None) -> World:
    """One group, some minutes of faults, then calm: it must run again, within the bound."""
    dice = random.Random(seed)
    world = World(dice.randint(2, 8), seed, core=core)
    world.advance(dice.uniform(0, 40))
    if seed % 10 == 9:
        storm(world, dice)
    else:
        if seed % 2:
            world.stragglers, world.duplication = 0.1, 0.3
        for _ in range(dice.randint(1, 25)):
            fault(world, dice)
            world.advance(dice.choice((0.2, 2.0, 7.0, 20.0, 40.0)))
    calm(world)
    return world


def storm(world: World, dice: random.Random) -> None:
    """Something is killed every time the group runs: the budget must end it."""
    for _ in range(20):
        name = dice.choice(world.names)
        dice.choice((world.end_child, world.end_child, world.kill_guard))(name)
        world.advance(dice.choice((30.0, 400.0)))


def calm(world: World) -> None:
    """Faults end, and once all guards are back an operator resumes or restarts the group."""
    world.heal()
    world.advance(70.0)
    world.command(world.random.choice(("resume", "restart")))
    world.settle(BOUND)


def quiet(seed: int, seconds: float, core: Any = None) -> World:
    """A group without faults, on a network that is merely imperfect."""
    world = World(2 + seed % 7, seed, Settings(), core)
    world.loss, world.delay = 0.01, 0.3
    world.advance(60.0)
    before = len(world.exits)
    for _ in range(int(seconds / 60)):
        world.wall += 3600
        world.advance(60.0)
    assert len(world.exits) == before == 0, world.exits
    return world
