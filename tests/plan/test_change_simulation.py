"""Changes under disorder: what must never happen does not, and calm brings the group back to one plan.

MUSTER_SIM_STEPS sets the number of steps of the nightly run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.plan import change_world, rename_world
from tests.plan.simulated_hosts import Violation

WORLDS = [change_world.episode, rename_world.episode]
OF_ONE = ["lock", "compare", "fence", "head last", "timer", "boot", "exchanging", "settle", "turn"]
OF_TWO = ["disarm", "disable", "gate", "exchanged", "whole", "waiting", "finish"]
Episode = Callable[..., Any]

STEPS = int(os.environ.get("MUSTER_SIM_STEPS", "300000"))
FEW = 20_000


def run(episode: Episode, steps: int) -> None:
    done = seed = 0
    while done < steps:
        try:
            done += episode(seed).steps
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")
        seed += 1


@pytest.mark.parametrize("episode", WORLDS, ids=["one group", "a rename"])
def test_some_thousand_steps(episode: Episode) -> None:
    run(episode, FEW)


@pytest.mark.nightly
@pytest.mark.parametrize("episode", WORLDS, ids=["one group", "a rename"])
def test_a_million_steps(episode: Episode) -> None:
    run(episode, STEPS)


@pytest.mark.parametrize(
    ("episode", "rule"),
    [*((change_world.episode, rule) for rule in OF_ONE), *((rename_world.episode, rule) for rule in OF_TWO)],
)
def test_every_rule_is_missed_when_left_out(episode: Episode, rule: str) -> None:
    def disorder() -> None:
        for seed in range(6000):
            episode(seed, rule)

    with pytest.raises(Violation):
        disorder()
