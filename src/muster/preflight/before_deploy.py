"""Preflight inside a pyinfra run: prints what it found once, stops the run where a check fails, changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyinfra.api import State, deploy
from pyinfra.api.exceptions import DeployError
from pyinfra.context import ctx_state

from muster.errors import Refusal
from muster.plan.decision import Observation
from muster.plan.types import Plan
from muster.preflight import catalogue, plan_needs
from muster.preflight.deploy_checks import verdicts
from muster.preflight.host_report import Report
from muster.preflight.needs import Needs
from muster.preflight.outcome import Outcome, judge, other_build
from muster.preflight.run_checks import gather, meet, run_inventory, running
from muster.preflight.table import console_on, render
from muster.spec import inventory
from muster.spec.settings import Settings


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


@dataclass(frozen=True)
class Looked:
    """What a deploy saw of its hosts before it touches anything.

    Args:
        plan: that was asked about.
        needs, reports: of the preflight, by host and in the plan's order.
        seen: host -> the group's state there; hosts that were not reached are not in it.
    """

    plan: Plan
    needs: Mapping[str, Needs]
    reports: list[Report]
    seen: Mapping[str, Observation]

    @property
    def other_build(self) -> str | None:
        """The build of the engine that the hosts' drivers run, where the plan only assumed another one."""
        return other_build(self.reports, self.needs)


def look(
    state: State, plan: Plan, settings: Settings, requests: Mapping[str, Any], unreached: Mapping[str, str]
) -> Looked:
    """Ask every host for its report and for the group's state on it, in one session.

    Args:
        state: pyinfra's, its hosts connected.
        plan: the whole group, as far as this run goes.
        settings: of the group.
        requests: host -> request of `muster.on_host.probe_group`.
        unreached: host -> why it could not be connected to.

    Raises:
        Refusal: an unknown check is waived.
    """
    catalogue.known_waivers(settings.preflight.waive)
    needs = plan_needs.needs_of_plan(plan, settings)
    programs = {name: {"probe_group": request} for name, request in requests.items()}
    found = gather(state, needs, unreached, besides=programs)
    return Looked(plan, needs, found.reports, {name: told["probe_group"] for name, told in found.besides.items()})


def require(state: State, looked: Looked, settings: Settings) -> Outcome:
    """Judge what a deploy saw, and stop it where a check fails; only what is wrong is printed.

    Args:
        state, settings: as for `look`.
        looked: what it returned.

    Hosts of a group that does not run meet each other once more, so that a fabric that does not carry is known before
    the ranks wait for each other. A group that runs is the better proof, and is not disturbed.

    Raises:
        DeployError: some check fails on some host; nothing was touched.
    """
    met = []
    if settings.preflight.pairs and len(looked.needs) > 1 and not running(looked.reports, looked.needs):
        met = meet(state, looked.needs, looked.reports, settings.preflight.port)
    found = judge(
        f"preflight of {looked.plan.group}, {looked.plan.label}",
        looked.reports,
        looked.needs,
        waived=catalogue.known_waivers(settings.preflight.waive),
        measured=met,
        more=verdicts(looked.plan, looked.seen),
    )
    _show(found, brief=True)
    stop_on_failure(found)
    return found


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
