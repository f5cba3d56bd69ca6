"""Preflight inside a pyinfra run: prints what it found once, stops the run where a check fails, changes nothing."""

from __future__ import annotations

import sys

from pyinfra.api import State, deploy
from pyinfra.api.exceptions import DeployError
from pyinfra.context import ctx_state

from muster import inventory
from muster.errors import Refusal
from muster.plan import Plan
from muster.preflight.outcome import Outcome
from muster.preflight.run import run_inventory, run_preflight
from muster.preflight.table import console_on, render
from muster.settings import Settings


@deploy("Preflight")
def preflight() -> None:
    """Check every host of the inventory; no recipe is needed. The table goes to standard error, as pyinfra's lines.

    Raises:
        DeployError: some check fails on some host. What failed stands in the table above it.
    """
    state: State = ctx_state.get()
    try:
        fleet = inventory.from_pyinfra(state.inventory, name="inventory")
        outcome = run_inventory(state, fleet.hosts, fleet.settings, made=lambda found: _show(found, brief=False))
    except Refusal as refusal:
        raise DeployError(str(refusal)) from None
    stop_on_failure(outcome)


def require(state: State, plan: Plan, settings: Settings) -> Outcome:
    """Run the preflight of a plan before anything is touched; only what is wrong is printed.

    Args:
        state: pyinfra's, its hosts connected.
        plan: the whole group.
        settings: of the group.

    Raises:
        DeployError: some check fails on some host. Refusal: an unknown check is waived.
    """
    outcome = run_preflight(state, plan, settings, made=lambda found: _show(found, brief=True))
    stop_on_failure(outcome)
    return outcome


def _show(outcome: Outcome, *, brief: bool) -> None:
    render(outcome, console_on(sys.stderr), brief=brief)


def stop_on_failure(outcome: Outcome) -> None:
    """End the run when a check fails that is not waived.

    Raises:
        DeployError: what failed, and where.
    """
    failures = outcome.failures()
    if failures:
        names = sorted({f"{verdict.check} on {verdict.host}" for verdict in failures})
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        raise DeployError(
            f"preflight: {', '.join(names[:8])}{more} failed; nothing was touched."
            " Mend what is named above, or waive a check by its name in preflight_waive"
        )
