"""A gate between the groups of a roll: a changed group is measured on its head, and held against kept runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pyinfra import logger
from pyinfra.api.state import State

from muster.bench import ledger, regression_gate, run_scenarios, scenario
from muster.bench.ledger import LedgerEntry
from muster.bench.measured_group import MeasuredGroup
from muster.deploys.shared.group_run import GroupRun
from muster.errors import Refusal
from muster.hosts.all_hosts import hosts_of
from muster.plan.types import Plan
from muster.spec import recipe as recipes
from muster.spec.recipe import Recipe

REPEATS, SECONDS, TOLERANCE = 3, 14400, 0.05


@dataclass
class RollGate:
    """What a changed group must be as good as.

    Args:
        baseline: ledger file or directory, or the beginning of a session, plan digest or release.
        ledger: directory of kept runs.
        tolerance: relative change that is always accepted.
    """

    baseline: str
    ledger: Path = Path("ledger")
    tolerance: float = TOLERANCE

    def require(self, recipe_name: str, run: GroupRun) -> None:
        """Refuse a group that could not be judged, before anything is touched.

        Raises:
            Refusal: no kept run of its recipe's scenario, or a scenario that it does not serve.
        """
        recipe = _recipe(recipe_name, run)
        picked = _picked(recipe, run.plan)
        run_scenarios.require_measurable(run.plan)
        there = {entry.scenario for entry in self._before(recipe) if entry.kind == "bench" and not entry.problems}
        lacking = [each.name for each in picked if each.name not in there]
        if lacking:
            raise Refusal(
                f"the baseline '{self.baseline}' has no completed run of {recipe.name}'s {lacking[0]}",
                needed="a kept run to hold the changed group against",
                fix=f"muster bench INVENTORY --group {run.plan.group} --scenario {lacking[0]} --repeat {REPEATS}",
            )

    def problem(self, state: State, recipe_name: str, run: GroupRun) -> str:
        """Measure a group, keep the runs, and return what got worse or did not run; empty where it passes."""
        recipe = _recipe(recipe_name, run)
        group = MeasuredGroup(recipe, run.plan, run.settings, state, hosts_of(state))
        try:
            runs = list(
                run_scenarios.measure(
                    group,
                    group.check(),
                    _picked(recipe, run.plan),
                    directory=self.ledger,
                    sweep=False,
                    repeat=REPEATS,
                    seconds=SECONDS,
                    say=logger.info,
                )
            )
            return judged(self._before(recipe), runs, tolerance=self.tolerance)
        except Refusal as refusal:
            return refusal.found

    @cached_property
    def _kept(self) -> list[LedgerEntry]:
        """What was kept before the roll: its own runs are in the same ledger."""
        return ledger.baseline(self.baseline, ledger.read(self.ledger)[0])

    def _before(self, recipe: Recipe) -> list[LedgerEntry]:
        return [entry for entry in self._kept if entry.recipe == recipe.name]


def judged(before: Sequence[LedgerEntry], runs: Sequence[LedgerEntry], *, tolerance: float) -> str:
    """Return why runs do not pass against kept ones; empty where they do.

    Raises:
        Refusal: as `regression_gate.compare`.
    """
    failed = [f"{entry.load_key}: {problem}" for entry in runs for problem in entry.problems]
    if failed:
        return failed[0]
    comparisons = regression_gate.compare(before, runs, tolerance=tolerance)
    return "; ".join(comparison.text for comparison in comparisons if comparison.regressed)


def _recipe(recipe_name: str, run: GroupRun) -> Recipe:
    return recipes.load(recipe_name).of_variant(run.settings.variant)


def _picked(recipe: Recipe, plan: Plan) -> list[scenario.Scenario]:
    picked = scenario.pick(recipe, (), gpu=plan.head.gpu)
    scenario.require_served(picked, plan.memory.needed_tokens if plan.memory else None)
    return picked
