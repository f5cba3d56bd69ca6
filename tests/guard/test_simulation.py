"""The decision core under disorder: what must never happen, does not, and calm brings the group back.

MUSTER_SIM_STEPS sets the number of core steps of the seeded run (300,000 here; millions in a nightly run).
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from . import chaos, mutants
from .world import World

pytestmark = pytest.mark.slow

STEPS = int(os.environ.get("MUSTER_SIM_STEPS", "300000"))

hosts = st.integers(0, 7)


class Disorder(RuleBasedStateMachine):
    """Faults chosen by hypothesis, which shrinks what breaks the group to its shortest form."""

    world: World

    @initialize(size=st.integers(2, 8), seed=st.integers(0, 2**32))
    def boot(self, size: int, seed: int) -> None:
        self.world = World(size, seed)

    def name(self, index: int) -> str:
        return self.world.names[index % len(self.world.names)]

    @rule(seconds=st.sampled_from((0.1, 1.0, 5.0, 20.0, 60.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(host=hosts)
    def kill_guard(self, host: int) -> None:
        self.world.kill_guard(self.name(host))

    @rule(host=hosts)
    def pause_guard(self, host: int) -> None:
        self.world.pause_guard(self.name(host))

    @rule(host=hosts)
    def resume_guard(self, host: int) -> None:
        self.world.resume_guard(self.name(host))

    @rule(host=hosts)
    def end_child(self, host: int) -> None:
        self.world.end_child(self.name(host))

    @rule(host=hosts, seconds=st.floats(5, 60))
    def reboot(self, host: int, seconds: float) -> None:
        self.world.reboot(self.name(host), seconds)

    @rule(source=hosts, sink=hosts)
    def cut_one_way(self, source: int, sink: int) -> None:
        self.world.cut.add((self.name(source), self.name(sink)))

    @rule()
    def reconnect(self) -> None:
        self.world.cut.clear()

    @rule(loss=st.sampled_from((0.0, 0.5)), twice=st.sampled_from((0.0, 0.3)), late=st.sampled_from((0.0, 0.1, 0.5)))
    def weather(self, loss: float, twice: float, late: float) -> None:
        self.world.loss, self.world.duplication, self.world.stragglers = loss, twice, late

    @rule(command=st.sampled_from(("stop", "restart", "resume")))
    def operator(self, command: str) -> None:
        self.world.command(command)

    @rule(host=hosts)
    def stop_unit(self, host: int) -> None:
        self.world.leave(self.name(host))

    @rule()
    def stall(self) -> None:
        self.world.stall()

    @rule(host=hosts, reason=st.sampled_from(("", "Xid 79")))
    def block(self, host: int, reason: str) -> None:
        self.world.block(self.name(host), reason)

    @rule(host=hosts, digest=st.sampled_from(("plan-1", "plan-2")))
    def deploy(self, host: int, digest: str) -> None:
        self.world.hosts[self.name(host)].digest = digest

    @rule(seconds=st.floats(-7200, 7200))
    def set_wall_clock(self, seconds: float) -> None:
        self.world.wall += seconds

    def teardown(self) -> None:
        if hasattr(self, "world"):
            chaos.calm(self.world)


TestDisorder = Disorder.TestCase
TestDisorder.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_seeded_disorder() -> None:
    steps = seed = 0
    while steps < STEPS:
        try:
            steps += chaos.episode(seed).steps
        except AssertionError as error:
            pytest.fail(f"seed {seed}: {error}")
        seed += 1
    print(f"{steps} steps in {seed} episodes")


@pytest.mark.parametrize("seed", range(7))
def test_a_group_without_faults_never_restarts(seed: int) -> None:
    world = chaos.quiet(seed, 3600.0)
    assert world.running()


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_every_rule_is_missed_when_taken_away(name: str) -> None:
    core = mutants.core(name)

    def disorder() -> None:
        for seed in range(500):
            chaos.episode(seed, core)

    with pytest.raises(AssertionError):
        disorder()
