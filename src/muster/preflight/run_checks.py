"""A preflight over SSH: asks every host at once, lets pairs measure, and judges. Reads; changes nothing on any host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyinfra.api import Host, State

from muster.hosts.all_hosts import each, hosts_of
from muster.hosts.run_programs import run_programs
from muster.plan import loaders
from muster.plan.prepare import plan_for_drivers
from muster.plan.types import Plan
from muster.preflight import (
    allreduce,
    catalogue,
    drift,
    group_files,
    measure_hosts,
    meeting,
    outcome,
    pairs,
    plan_needs,
    read_report,
)
from muster.preflight.host_report import HostReport, Installed, unreachable
from muster.preflight.needs import Needs
from muster.preflight.outcome import Outcome
from muster.preflight.verdict import Verdict
from muster.spec.settings import Settings

PROBE_SECONDS = 150
IMPORT_SECONDS = 120.0

Replan = Callable[[str], Plan]
Unreached = Mapping[str, str]


@dataclass(frozen=True)
class ProbedHosts:
    """What hosts answered in one session each: their reports, and the answers of further programs, by host."""

    reports: list[HostReport]
    besides: Mapping[str, Mapping[str, Any]]

    def of_program(self, name: str) -> dict[str, Mapping[str, Any]]:
        """Return the answers of one further program, by host."""
        return {host: answers[name] for host, answers in self.besides.items()}


def probe_hosts(
    state: State,
    needs: Mapping[str, Needs],
    unreached: Mapping[str, str],
    *,
    imports: float = 0.0,
    besides: Mapping[str, Mapping[str, Any]] | None = None,
) -> ProbedHosts:
    """Ask every host for its report, in one session each.

    Args:
        state: pyinfra's, its hosts connected.
        needs: by host, in the order of the reports.
        unreached: hosts that are not asked, and why.
        imports: seconds that importing an installed engine may take; 0 does not try.
        besides: host -> further programs and their requests, for the same session; they run first.
    """
    more, answers = besides or {}, dict[str, Mapping[str, Any]]()

    def one(host: Host) -> HostReport:
        sent = time.time()
        requests = {**more.get(host.name, {}), **needs[host.name].requests(imports=imports)}
        answer = run_programs(state, host, requests, seconds=PROBE_SECONDS + int(imports))
        if answer.lost:
            return unreachable(host.name, answer.lost)
        answers[host.name] = {name: answer[name] for name in more.get(host.name, {})}
        return read_report.from_answers(host.name, answer, sent, time.time())

    hosts = hosts_of(state)
    asked = [hosts[name] for name in needs if name in hosts and name not in unreached]
    reports = each(asked, one)
    gone = {name: unreachable(name, unreached.get(name, "not in the inventory")) for name in needs}
    return ProbedHosts([reports.get(name, gone[name]) for name in needs], answers)


def probe_plan(
    state: State,
    plan: Plan,
    settings: Settings,
    requests: Mapping[str, Any],
    unreached: Unreached,
    *,
    imports: float = 0.0,
) -> tuple[Mapping[str, Needs], ProbedHosts]:
    """Ask every host of a plan for its report and for the groups on it, whose units are no needs of this one.

    Args:
        state, unreached, imports: as for `probe_hosts`.
        plan, settings: of the group.
        requests: host -> request of `muster.on_host.probe_group`, for every host of the plan.
    """
    needs = plan_needs.needs_of_plan(plan, settings)
    # What was measured of a disk is kept beside the weights that are staged.
    where = {"directory": plan.model}
    kept = {"kept_rate": where, "kept_loaders": where} if plan.model.startswith("/") else {}
    besides = {name: {"probe_group": request, **kept} for name, request in requests.items()}
    hosts = probe_hosts(state, needs, unreached, imports=imports, besides=besides)
    groups = {name: answers["probe_group"].get("groups", {}) for name, answers in hosts.besides.items()}
    ours = {plan.group, settings.former_group}
    own = {name: plan_needs.without_others(need, ours, groups.get(name, {})) for name, need in needs.items()}
    return own, hosts


def preflight(
    state: State,
    needs: Mapping[str, Needs],
    settings: Settings,
    *,
    title: str,
    unreached: Mapping[str, str] | None = None,
    reports: list[HostReport] | None = None,
    more: Sequence[Verdict] = (),
    notes: Sequence[str] = (),
) -> Outcome:
    """Run a whole preflight.

    Args:
        state: pyinfra's, its hosts connected.
        needs: by host, in inventory order.
        settings: waivers, pairs, NCCL.
        title: what is checked, in words.
        unreached: host -> why it could not be connected to.
        reports: of all hosts; None asks them.
        more: further verdicts.
        notes: further lines to show.

    Pairs and the all-reduce load the fabric and the GPUs; while the group runs they are left out.
    """
    options, waived = settings.preflight, catalogue.known_waivers(settings.preflight.waive)
    if reports is None:
        reports = probe_hosts(state, needs, unreached or {}).reports
    idle, notes = not running(reports, needs), [*notes]
    measured: list[pairs.Measured] = []
    several = len(needs) > 1
    if options.pairs and several and idle:
        met = measure_hosts.meet(state, needs, reports, options.port)
        measured = meeting.combined(measure_hosts.measure(state, needs, reports, options.port), met)
    elif options.pairs and several:
        notes.append("pairs of hosts were not measured: a group is running there")
    all_reduce: list[Verdict] = []
    if options.nccl:
        refusal = _why_no_nccl(reports, needs, idle=idle)
        if refusal:
            notes.append(f"no all-reduce: {refusal}")
        else:
            all_reduce += allreduce.verdicts(measure_hosts.all_reduce(state, needs, settings), reports)
    return outcome.judge_group(
        title,
        reports,
        needs,
        waived=waived,
        measured=measured,
        more=(*more, *all_reduce),
        notes=notes,
        running=not idle,
    )


def running(reports: Iterable[HostReport], needs: Mapping[str, Needs]) -> bool:
    """Whether some unit of this group has an engine on some host."""
    return any(
        needs[report.host].in_own_unit(f"/{unit}")
        for report in reports
        for unit in (report.units if isinstance(report.units, tuple) else ())
    )


def _why_no_nccl(reports: Iterable[HostReport], needs: Mapping[str, Needs], *, idle: bool) -> str | None:
    if not idle:
        return "the group is running"
    for report in reports:
        if report.unreached is not None:
            return f"{report.host} was not reached"
        if not isinstance(report.installed, Installed) or "torch" not in report.installed.versions:
            return f"no engine is installed on {report.host} yet"
    return None


def run_recipe(
    state: State, plan: Plan, replan: Replan, settings: Settings, *, title: str, unreached: Unreached
) -> Outcome:
    """Run the preflight of a group, against the plan with the CUDA variant that the hosts' drivers run.

    Args:
        state: pyinfra's, its hosts connected.
        plan: of the group, with the variant that the settings ask for or assume.
        replan: returns that plan with another variant.
        settings: of the group; its preflight settings are waivers, pairs and NCCL.
        title: what is checked, in words.
        unreached: host -> why it could not be connected to.
    """
    catalogue.known_waivers(settings.preflight.waive)

    def probe(plan: Plan) -> tuple[Mapping[str, Needs], ProbedHosts]:
        requests = {name: group_files.request(plan.group) for name in plan.hosts}
        return probe_plan(state, plan, settings, requests, unreached, imports=IMPORT_SECONDS)

    plan, (needs, hosts) = plan_for_drivers(plan, replan, probe, lambda answers: outcome.drivers_of(answers[1].reports))
    found = group_files.verdicts(plan.group, hosts.of_program("probe_group"))
    rates = {host: answers.get("kept_rate", {}).get("rate") for host, answers in hosts.besides.items()}
    kept = {host: answers.get("kept_loaders", {}).get("loaders") for host, answers in hosts.besides.items()}
    expected = loaders.cold_load_line(plan.loaders, plan.load, rates, kept)
    notes = [expected] if expected else []
    return preflight(state, needs, settings, title=title, reports=hosts.reports, more=tuple(found), notes=notes)


def run_drift(state: State, plan: Plan, replan: Replan, settings: Settings, unreached: Unreached) -> Outcome:
    """Compare the hosts with each other and with a plan.

    Args:
        state: pyinfra's, its hosts connected.
        plan, replan: as for `run_recipe`.
        settings: of the group.
        unreached: host -> why it could not be connected to.
    """
    catalogue.known_waivers(settings.preflight.waive)

    def probe(plan: Plan) -> tuple[Mapping[str, Needs], ProbedHosts]:
        needs = plan_needs.needs_of_plan(plan, settings)
        # Disks, ports and fabric are preflight's; drift is about what was installed.
        asked = {name: replace(need, paths=(), ports=()) for name, need in needs.items()}
        besides = {name: {"probe_group": group_files.request(plan.group)} for name in plan.hosts}
        return needs, probe_hosts(state, asked, unreached, besides=besides)

    plan, (needs, hosts) = plan_for_drivers(plan, replan, probe, lambda answers: outcome.drivers_of(answers[1].reports))
    found = group_files.verdicts(plan.group, hosts.of_program("probe_group"))
    title = f"drift of {plan.group} from its plan {plan.digest}"
    return drift.judge_drift(title, hosts.reports, needs, tuple(found))


def deployed_plan(state: State, plan: Plan, replan: Replan) -> Plan:
    """Return the plan with the CUDA variant that the hosts' drivers run, as a deploy has chosen it.

    Args:
        state: pyinfra's, its hosts connected; asked only where the plan assumes its variant.
        plan, replan: as for `run_recipe`.
    """
    hosts = hosts_of(state)

    def probe(plan: Plan) -> dict[str, str | None]:
        if not plan.cuda_variant_assumed:
            return {}
        answers = each(
            [hosts[name] for name in plan.hosts if name in hosts],
            lambda host: run_programs(state, host, {"probe_gpus": {"sources": ["gpus"]}}, seconds=PROBE_SECONDS),
        )
        return outcome.drivers_of(read_report.from_answers(name, answer, 0.0, 0.0) for name, answer in answers.items())

    return plan_for_drivers(plan, replan, probe, lambda drivers: drivers)[0]
