"""Changes under disorder: what must never happen does not, and calm brings the group back to one plan.

MUSTER_SIM_STEPS sets the number of steps of the nightly run.
"""

from __future__ import annotations

import os

import pytest

from tests.plan.change_world import Violation, episode

STEPS = int(os.environ.get("MUSTER_SIM_STEPS", "300000"))
FEW = 20_000


def run(steps: int) -> None:
    done = seed = 0
    while done < steps:
        try:
            done += episode(seed).steps
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")
        seed += 1


def test_some_thousand_steps() -> None:
    run(FEW)


@pytest.mark.nightly
def test_a_million_steps() -> None:
    run(STEPS)


@pytest.mark.parametrize(
    "rule", ["lock", "compare", "fence", "head last", "timer", "boot", "exchanging", "settle", "turn"]
)
def test_every_rule_is_missed_when_left_out(rule: str) -> None:
    def disorder() -> None:
        for seed in range(6000):
            episode(seed, rule)

    with pytest.raises(Violation):
        disorder()
