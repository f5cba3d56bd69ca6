"""Leave: hosts that the inventory names as leaving are stopped and cleaned, once the group serves without them.

They are in the inventory, so that how to reach them is known, and in no plan. Nobody here knows the SSH data of a host
that is in the inventory no more, and its guard may not remove what is root's: such a host is named, with what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.remove import look_at, removal_request, taking_away, units_to_stop
from muster.deploys.shared import polling
from muster.deploys.shared.group_run import GroupRun
from muster.hosts import operations
from muster.hosts.all_hosts import reached
from muster.hosts.once import OncePerRun
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.hosts.run_words import words
from muster.hosts.say import fail
from muster.on_host.in_words import size
from muster.plan.types import Plan
from muster.spec import inventory

_Leaving = dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Host -> the request that takes everything off it, and what is there."""
_leaving: OncePerRun[_Leaving] = OncePerRun()


@stage("Leave")
def leave(run: GroupRun) -> None:
    """Stop and clean the hosts that leave, after every host that stays has passed its verification."""
    state, host = current_state(), current_host()
    leaving = _leaving.get(state, run.plan.group, lambda: _look(state, run))
    command = FunctionCommand(_clean, [run, *leaving[host.name]], {}) if host.name in leaving else None
    operations.carried_out(command, name="hosts that leave are stopped and cleaned")


def _look(state: State, run: GroupRun) -> _Leaving:
    """Ask the leaving hosts what is there, and say who leaves; everything goes unless another group is there."""
    names = inventory.leaving_hosts(state.inventory)
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
    everything, leaving = removal_request(run.settings, groups=None), _Leaving()
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
    return leaving


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


def _clean(state: State, host: Host, run: GroupRun, request: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    failed = sorted({other.name for other in state.failed_hosts} & set(run.progress.hosts))
    if failed or not run.progress.touched:
        fail(host, f"nothing was stopped or removed here, for {', '.join(failed) or 'the group'} did not come through")
        return False
    return polling.stop(state, host, units_to_stop(there)) and taking_away(request).execute(state, host, {})
