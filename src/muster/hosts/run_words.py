"""What a run says besides its steps: what it asks before it stops what serves, and the last line of its output.

pyinfra ends a failed run with "No hosts remaining!", below which nobody looks for the reason. The line kept here comes
last: after pyinfra's own command when the process ends, from `deploy_run` when the run is over. The exit status goes
with it: pyinfra's own would be 1 for a refusal, and 0 for an interrupt.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import pyinfra
from pyinfra.api.host import Host
from pyinfra.api.state import BaseStateCallback, State

from muster.hosts import interrupts
from muster.hosts.pyinfra_types import current_state, operation_name

UNKNOWN = "INVENTORY RECIPE"
DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: refused means untouched."""


@dataclass
class RunWords:
    """The words of the one run of this process.

    Args:
        where: inventory and recipe as the user would type them, for the next command.
        questions: what would be stopped and what that costs, one for each group.
        outcomes: what is true at the end of a run that succeeds, one line for each group.
        failures: reasons, first one first; the others follow from it.
        conclusion: what is true at the end of a run that failed and has done something about it; beats the reasons.
        refused: whether the run ended before it touched any host.
        touched: whether the run has begun to act on what runs.
        advice: what to do after the failure, where that is no look at the group.
        interrupted: whether a person has ended it.
        truths: group -> what is true of it at any moment of its change; empty where the run changes nothing.
        untouched: groups that the run did not come to.
    """

    where: str = UNKNOWN
    questions: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    conclusion: str = ""
    refused: bool = False
    touched: bool = False
    advice: str = ""
    interrupted: bool = False
    truths: dict[str, Callable[[], str]] = field(default_factory=dict)
    untouched: tuple[str, ...] = ()
    _awaited: bool = False

    def about(self, inventory: Path | None, recipe: str, group: str = "") -> None:
        """Keep which inventory and recipe the run is about, unless the user has named both.

        Args:
            inventory: its file; None where no file is behind it.
            recipe: its name, as it was planned or as the hosts know it; empty where the run is about several.
            group: that is meant of an inventory that has several: it says more than the recipe.
        """
        if self.where == UNKNOWN and inventory is not None:
            here = Path.cwd()
            self.where = str(inventory.relative_to(here) if inventory.is_relative_to(here) else inventory)
        which = f"--group {group}" if group else recipe
        if which and self.where != UNKNOWN and not self.where.endswith(f" {which}"):
            self.where += f" {which}"

    def ask(self, question: str) -> None:
        """Have something asked before the run acts; without a question nothing that serves is stopped."""
        self.questions.append(question)

    def done(self, outcome: str) -> None:
        """Keep what is true once the run has succeeded."""
        self.outcomes.append(outcome)

    def fail(self, reason: str) -> None:
        """Keep a reason of the failure."""
        self.failures.append(reason)

    def conclude(self, text: str) -> None:
        """Keep what failed and what is true now, after the run has acted on the failure."""
        self.conclusion = text

    def refuse(self) -> None:
        """Keep that the run ended before it touched anything; the refusal itself has been printed."""
        self.refused = True
        self.say_at_the_end()

    def interrupt(self) -> None:
        """Keep that a person has ended the run; nothing that follows from it is a reason."""
        self.interrupted, self.failures = True, ["interrupted; what the hosts have begun goes on"]

    @property
    def status(self) -> int:
        """The exit status of a run that ends here."""
        if self.interrupted:
            return INTERRUPTED
        if self.refused and not self.touched:
            return REFUSED
        return FAILED if self.failures or self.refused else DONE

    def last(self) -> str:
        """Return the last line of a run: what failed, whether the group was touched, the next command."""
        if self.conclusion:
            return f"{self.conclusion}{self._rest}; next: {self._after_failure()}"
        if self.failures or (self.refused and self.touched):
            reason = self.failures[0] if self.failures else "refused on the way"
            state = "the group was touched" if self.touched else "the running group was not touched"
            if self.touched and self.truths:
                state = "; ".join([state, *(truth() for truth in self.truths.values())])
            return f"{reason}; {state}{self._rest}; next: {self._after_failure()}"
        if self.refused:
            return "refused; nothing was touched; next: correct what is named above and run the same command again"
        return "; ".join(self.outcomes)

    @property
    def _rest(self) -> str:
        return f"; not touched: {', '.join(self.untouched)}" if self.untouched else ""

    def _after_failure(self) -> str:
        if self.advice:
            return self.advice
        look = f"muster status {self.where}"
        if self.touched:
            return f"{look}, muster logs {self.where} --failure"
        return "run it again" if self.interrupted else "correct that and run it again"

    def end_when_interrupted(self) -> None:
        """Have Ctrl-C end pyinfra's own command with 130, before hosts are asked too; pyinfra itself ends with 0.

        config.py calls it: the inventory and the connections come after that, the deploy long after.
        """
        if pyinfra.is_cli and not self._awaited:
            interrupts.reach_main(self._interrupt)

    def say_at_the_end(self) -> None:
        """Have the last line printed when this process ends, once; for pyinfra's own command."""
        if pyinfra.is_cli and not self._awaited:
            self._awaited = True
            current_state().add_callback_handler(FailureNotice())
            atexit.register(self._end)
            interrupts.reach_main(self._interrupt)  # for a run without the clone's config.py

    def _interrupt(self) -> SystemExit:
        self.interrupt()
        if not self._awaited:
            self.say()
        return SystemExit(INTERRUPTED)

    def _end(self) -> None:
        self.say()
        if self.status in (REFUSED, INTERRUPTED) and pyinfra.is_cli:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.status)  # the interpreter ends with pyinfra's status, and takes no other by now

    def say(self) -> None:
        """Print the last line, in red on a terminal where something failed."""
        text = self.last()
        if text:
            bad = self.refused or bool(self.failures or self.conclusion)
            click.secho(f"muster: {text}", fg="red" if bad else None, bold=bad, err=True)

    def begin(self, where: str) -> None:
        """Start afresh, for a run that prints its last line itself.

        Args:
            where: inventory, and the recipe if the user has named it.
        """
        self.__init__(where=where, _awaited=True)  # type: ignore[misc]


class FailureNotice(BaseStateCallback):
    """Keeps the step that fails first as the reason, unless the step has given one itself."""

    def operation_host_error(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        """Note it."""
        if not words.failures:
            words.fail(f"{host.name} failed at '{operation_name(state, op_hash)}'")


words = RunWords()
"""Of this process: it runs one deploy."""
