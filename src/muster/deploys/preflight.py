"""Preflight: check every host of an inventory without a recipe, and stop where a check fails; changes nothing."""

from __future__ import annotations

from pyinfra.api.state import State

from muster.hosts.once import OncePerRun
from muster.hosts.pyinfra_types import current_state, stage
from muster.preflight import plan_needs, run_checks
from muster.preflight.before_deploy import print_outcome, stop_on_failure
from muster.preflight.outcome import Outcome
from muster.spec import inventory

_outcomes: OncePerRun[Outcome] = OncePerRun()


@stage("Preflight")
def preflight() -> None:
    """Check every host of the inventory and print the table once, to standard error.

    Raises:
        DeployError: some check fails on some host; the table above it says which.
    """
    state = current_state()
    stop_on_failure(_outcomes.get(state, "", lambda: _checked(state)))


def _checked(state: State) -> Outcome:
    fleet = inventory.of_run(state.inventory)
    count = len(fleet.hosts)
    needs = {spec.name: plan_needs.needs_of_host(spec, fleet.settings, count) for spec in fleet.hosts}
    active = {host.name for host in state.active_hosts}
    unreached = {name: "not connected in this run" for name in needs if name not in active}
    title = f"preflight of {count} host{'s' * (count > 1)}"
    outcome = run_checks.preflight(state, needs, fleet.settings, title=title, unreached=unreached)
    print_outcome(outcome, brief=False)
    return outcome
