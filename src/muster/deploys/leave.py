"""Leave: hosts that the inventory names as leaving are stopped and cleaned, once the group serves without them.

They are in the inventory, so that how to reach them is known, and in no plan. Nobody here knows the SSH data of a host
that is in the inventory no more, and its guard may not remove what is root's: such a host is named, with what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.change_steps import finish, lock, record, stays
from muster.deploys.remove import begin_removal, look_at, removal_request, taking_away, units_to_stop
from muster.deploys.shared import polling
from muster.deploys.shared.group_run import GroupRun
from muster.deploys.shared.progress import Progress
from muster.hosts import operations
from muster.hosts.all_hosts import reached
from muster.hosts.once import OncePerRun
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.hosts.run_words import words
from muster.hosts.say import fail
from muster.on_host.in_words import size
from muster.plan.types import Plan
from muster.spec import inventory


@dataclass(frozen=True)
class Leaving:
    """The hosts that leave in one run.

    Args:
        hosts: host -> the request that takes everything off it, and what is there.
        progress: theirs, with the change that their leaving is.
    """

    hosts: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]
    progress: Progress


_leaving: OncePerRun[Leaving] = OncePerRun()


def leave(run: GroupRun) -> None:
    """Stop and clean the hosts that leave, after every host that stays has passed its verification."""
    state, host = current_state(), current_host()
    leaving = _leaving.get(state, run.plan.group, lambda: _look(state, run))
    if leaving.hosts:
        _serves_without(run, leaves=host.name in leaving.hosts)
    if host.name not in leaving.hosts:
        return
    request, there = leaving.hosts[host.name]
    progress = leaving.progress
    lock(progress, stays)
    record(progress, "stopping")
    _stop(units_to_stop(there), progress)
    record(progress, "committing")
    _clean(request, progress)
    finish(progress)


@stage("Leave")
def _serves_without(run: GroupRun, *, leaves: bool) -> None:
    """Ask a host that leaves. Hosts that stay have the operation too: it is what the others' steps come after."""
    question = FunctionCommand(_has_come_through, [run, leaves], {})
    operations.holds(question, name="the group serves without the hosts that leave")


def _has_come_through(state: State, host: Host, run: GroupRun, leaves: bool) -> bool:
    if not leaves:
        return True
    failed = sorted({other.name for other in state.failed_hosts} & set(run.progress.hosts))
    if failed or not run.progress.touched:
        fail(host, f"nothing was stopped or removed here, for {', '.join(failed) or 'the group'} did not come through")
        return False
    return True


@stage("Leave")
def _stop(units: tuple[str, ...], progress: Progress) -> None:
    command = FunctionCommand(polling.stop, [units, progress], {}) if units else None
    operations.carried_out(command, name="no unit of a host that leaves runs")


@stage("Leave")
def _clean(request: Mapping[str, Any], progress: Progress) -> None:
    operations.carried_out(taking_away(request, progress), name="hosts that leave are cleaned")


def _look(state: State, run: GroupRun) -> Leaving:
    """Ask the leaving hosts what is there, and say who leaves; everything goes unless another group is there.

    Raises:
        Refusal: somebody else is changing a group on a host that leaves.
    """
    names = inventory.leaving_hosts(state.inventory, run.inventory_group)
    hosts = {name: host for name, host in reached(state).items() if name in names}
    for name in sorted(set(names) - set(hosts)):
        logger.warning(
            f"{name} is leaving and was not reached: what muster made there stays; run again when it is back"
        )
    for name, address in gone(run.plan, run.observations).items():
        if name not in names:
            logger.warning(
                f"{name} ({address}) is no more in the inventory, and keeps what muster made; "
                f'fix: name it there again, and in leaving = ["{name}"], and run again'
            )
    everything = removal_request(run.settings, groups=None)
    leaving: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    for name, answer in look_at(state, hosts, everything).items():
        request, there = everything, answer
        if set(answer["going"]) - {run.plan.group}:
            request = removal_request(run.settings, groups=[run.plan.group])
            there = look_at(state, {name: hosts[name]}, request)[name]
        if there["paths"]:
            total = size(sum(there["paths"].values()))
            logger.info(f"{name} leaves: {len(there['paths'])} places, {total}, will be removed there")
            words.done(f"{name} has left: take it out of the inventory")
            leaving[name] = (request, there)
    transaction = begin_removal({name: there for name, (_, there) in leaving.items()})
    return Leaving(leaving, Progress(tuple(leaving), (), 0, transaction=transaction))


def gone(plan: Plan, observations: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the hosts that the deployed group has and the plan has not, with their addresses.

    Args:
        plan: what is planned.
        observations: host -> what `muster.on_host.probe_group` answered.
    """
    members = {name: address for seen in observations.values() for name, address in seen.get("members", {}).items()}
    addresses = {host.address for host in plan.hosts.values()}
    missing = {name: address for name, address in sorted(members.items()) if name not in plan.hosts}
    return {name: address for name, address in missing.items() if address not in addresses}  # no new name of one there
