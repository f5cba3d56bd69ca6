"""The preflight inside a deploy: probe every host, then stop the run where a check fails; changes nothing."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyinfra import logger
from pyinfra.api import State
from pyinfra.api.exceptions import DeployError
from rich.console import Console

from muster.plan.restart_decision import Observation
from muster.plan.types import Plan
from muster.preflight import catalogue, group_files
from muster.preflight.deploy_checks import verdicts
from muster.preflight.host_report import HostReport
from muster.preflight.measure_hosts import meet
from muster.preflight.needs import Needs
from muster.preflight.outcome import Outcome, judge_group
from muster.preflight.run_checks import probe_plan, running
from muster.preflight.table import console_on, render
from muster.spec.settings import Settings


@dataclass(frozen=True)
class Probed:
    """What a deploy knows of its hosts before it touches anything.

    Args:
        plan: the plan the hosts were probed for.
        needs: by host.
        reports: by host, in the plan's order.
        observations: host -> the group's state there; hosts that were not reached are missing.
    """

    plan: Plan
    needs: Mapping[str, Needs]
    reports: list[HostReport]
    observations: Mapping[str, Observation]


def probe(
    state: State, plan: Plan, settings: Settings, requests: Mapping[str, Any], unreached: Mapping[str, str]
) -> Probed:
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
    needs, hosts = probe_plan(state, plan, settings, requests, unreached)
    observations = {name: answers["probe_group"] for name, answers in hosts.besides.items()}
    return Probed(plan, needs, hosts.reports, observations)


def require_fit(state: State, probed: Probed, settings: Settings) -> Outcome:
    """Judge what a deploy has probed, and stop it where a check fails; prints only what is wrong.

    Args:
        state, settings: as for `probe`.
        probed: its result.

    Where the group does not run, its hosts also meet each other, so that a broken fabric is known before the ranks wait
    for each other. A running group is better proof, and is not disturbed.

    Raises:
        DeployError: some check fails on some host; nothing was touched.
    """
    measured, runs = [], running(probed.reports, probed.needs)
    if settings.preflight.pairs and len(probed.needs) > 1 and not runs:
        measured = meet(state, probed.needs, probed.reports, settings.preflight.port)
    outcome = judge_group(
        f"preflight of {probed.plan.group}, {probed.plan.label}",
        probed.reports,
        probed.needs,
        waived=catalogue.known_waivers(settings.preflight.waive),
        measured=measured,
        more=(
            *verdicts(probed.plan, probed.observations, former=settings.former_group),
            *group_files.verdicts(probed.plan.group, probed.observations),
        ),
        running=runs,
    )
    print_outcome(outcome, brief=True)
    stop_on_failure(outcome)
    return outcome


def print_outcome(outcome: Outcome, *, brief: bool) -> None:
    """Print an outcome to standard error; a brief one that stops nothing as lines like those of the run."""
    if not brief or outcome.failures():
        render(outcome, console_on(sys.stderr), brief=brief)
        return
    text = io.StringIO()
    colours = sys.stderr.isatty()
    render(outcome, Console(file=text, force_terminal=colours, no_color=not colours, soft_wrap=True), brief=True)
    for line in text.getvalue().splitlines():
        logger.info(line.rstrip())


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
            " Fix what is named above, or waive a check by its name in preflight_waive"
        )
