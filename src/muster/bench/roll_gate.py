"""Gates between the groups of a roll: a changed group is asked on its head, and held against kept runs.

A scenario says whether it is as fast as it was, an evaluation whether it answers as well. A gate keeps its own runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pyinfra import logger
from pyinfra.api.state import State

from muster.bench import eval_task, ledger, regression_gate, run_eval, run_scenarios, scenario
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
class _Gate(ABC):
    """What a changed group must be as good as.

    Args:
        baseline: ledger file or directory, or the beginning of a session, plan digest or release.
        ledger: directory of kept runs.
    """

    baseline: str
    ledger: Path = Path("ledger")
    kind: ClassVar[str]

    def problem(self, state: State, recipe_name: str, run: GroupRun) -> str:
        """Ask a group, keep the runs, and return what got worse or did not run; empty where it passes."""
        recipe = _recipe(recipe_name, run)
        group = MeasuredGroup(recipe, run.plan, run.settings, state, hosts_of(state))
        try:
            return judged(self._before(recipe), list(self._asked(group)), tolerance=TOLERANCE)
        except Refusal as refusal:
            return refusal.found

    @abstractmethod
    def _asked(self, group: MeasuredGroup) -> Iterator[LedgerEntry]:
        """Run on a group, and keep and yield every run."""

    @cached_property
    def _kept(self) -> list[LedgerEntry]:
        """What was kept before the roll: its own runs are in the same ledger."""
        return ledger.baseline(self.baseline, ledger.read(self.ledger)[0])

    def _before(self, recipe: Recipe) -> list[LedgerEntry]:
        """Return the completed runs of a recipe to hold a group against."""
        kept = [entry for entry in self._kept if entry.recipe == recipe.name]
        return [entry for entry in kept if entry.kind == self.kind and not entry.problems]

    def _lacks(self, recipe: Recipe, what: str, command: str) -> Refusal:
        return Refusal(
            f"the baseline '{self.baseline}' has no completed run of {recipe.name}'s {what}",
            needed="a kept run to hold the changed group against",
            fix=command,
        )


class BenchGate(_Gate):
    """The scenario of the recipe for the hosts' GPUs, three times: no figure may get worse."""

    kind = "bench"

    def require(self, recipe_name: str, run: GroupRun) -> None:
        """Refuse a group that could not be judged, before anything is touched.

        Raises:
            Refusal: no kept run of its recipe's scenario, or a scenario that it does not serve.
        """
        recipe = _recipe(recipe_name, run)
        picked = _picked(recipe, run.plan)
        run_scenarios.require_measurable(run.plan)
        there = {entry.scenario for entry in self._before(recipe)}
        lacking = [each.name for each in picked if each.name not in there]
        if lacking:
            command = f"muster bench INVENTORY --group {run.plan.group} --scenario {lacking[0]} --repeat {REPEATS}"
            raise self._lacks(recipe, lacking[0], command)

    def _asked(self, group: MeasuredGroup) -> Iterator[LedgerEntry]:
        return run_scenarios.measure(
            group,
            group.check(),
            _picked(group.recipe, group.plan),
            directory=self.ledger,
            sweep=False,
            repeat=REPEATS,
            seconds=SECONDS,
            say=logger.info,
        )


class EvalGate(_Gate):
    """GSM8K, as many questions and examples as the newest run of the baseline had: no score may get worse."""

    kind = "eval"

    def require(self, recipe_name: str, run: GroupRun) -> None:
        """Refuse a group that could not be judged, before anything is touched.

        Raises:
            Refusal: no kept evaluation of its recipe, or as `run_eval.require_askable`.
        """
        recipe = _recipe(recipe_name, run)
        run_eval.require_askable(run.plan, run.settings)
        if not self._before(recipe):
            raise self._lacks(recipe, eval_task.TASK, f"muster eval INVENTORY --group {run.plan.group}")

    def _before(self, recipe: Recipe) -> list[LedgerEntry]:
        return run_eval.comparable(self._kept, recipe.name)

    def _asked(self, group: MeasuredGroup) -> Iterator[LedgerEntry]:
        newest = self._before(group.recipe)[-1]
        entry, _ = run_eval.evaluate(
            group,
            group.check(),
            directory=self.ledger,
            limit=newest.prompts,
            fewshot=newest.load["fewshot"],
            say=logger.info,
        )
        yield entry


def gates(bench: object, evaluation: object, ledger: Path = Path("ledger")) -> list[BenchGate | EvalGate]:
    """Return the gates that are asked for, in their order.

    Args:
        bench, evaluation: baseline of each; empty for none.
        ledger: directory of kept runs.
    """
    # Wrong answers are found sooner than slow ones.
    asked: list[BenchGate | EvalGate] = [EvalGate(str(evaluation), ledger)] if evaluation else []
    return [*asked, BenchGate(str(bench), ledger)] if bench else asked


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
