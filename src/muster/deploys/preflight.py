"""Preflight: check every host of an inventory without a recipe, and stop where a check fails; changes nothing."""

from __future__ import annotations

from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError

from muster.errors import Refusal
from muster.hosts.pyinfra_types import current_state
from muster.preflight.before_deploy import print_outcome, stop_on_failure
from muster.preflight.run_checks import run_inventory
from muster.spec import inventory


@deploy("Preflight")
def preflight() -> None:
    """Check every host of the inventory and print the table once, to standard error.

    Raises:
        DeployError: some check fails on some host; the table above it says which.
    """
    state = current_state()
    try:
        fleet = inventory.of_run(state.inventory)
        outcome = run_inventory(
            state, fleet.hosts, fleet.settings, made=lambda outcome: print_outcome(outcome, brief=False)
        )
    except Refusal as refusal:
        raise DeployError(str(refusal)) from None
    stop_on_failure(outcome)
