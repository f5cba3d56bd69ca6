"""Stop, restart and resume a group that is on the hosts already.

A group under guards is stopped, restarted and resumed by its guards, which drain requests in flight and count nothing
against the budget. Plain units, and a head whose guard does not answer, are stopped and started by systemd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.bring_up import lift_hold, start_ranks, stop_ranks
from muster.deploys.change_steps import back, finish, lock, record
from muster.deploys.deployed_group import DeployedGroup, at_rest, find
from muster.deploys.shared import guard_commands
from muster.deploys.shared.gate import gate
from muster.deploys.shared.stop_question import stop_question
from muster.deploys.shared.transaction import begin
from muster.deploys.way_out import leave_edge, return_to_edge
from muster.hosts import operations
from muster.hosts.once import OncePerRun
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.hosts.run_words import words
from muster.hosts.say import fail, say
from muster.plan.change import Command
from muster.plan.plan_history import last_start

_groups: OncePerRun[DeployedGroup] = OncePerRun()


def stop(recipe: str | None = None) -> None:
    """Stop the group on the inventory's hosts.

    Guards stay and hold it stopped, through a reboot too, until it is resumed, restarted or deployed. Plain units stay
    enabled and start at the next boot. Without a host that is off the others are stopped; it is held when it returns.

    Args:
        recipe: of the group; may be left out where the hosts have one group.
    """

    def steps(deployed: DeployedGroup) -> None:
        leave_edge(deployed.drain, deployed.progress)
        record(deployed.progress, "stopping")
        _end(deployed, "stop")
        _report_absent(deployed)

    _change("stop", recipe, steps)


def restart(recipe: str | None = None) -> None:
    """Stop the group on the inventory's hosts, then start it in its order and wait until it is ready.

    Args:
        recipe: as for `stop`.
    """

    def steps(deployed: DeployedGroup) -> None:
        _read_units(deployed)
        leave_edge(deployed.drain, deployed.progress)
        record(deployed.progress, "stopping")
        _end(deployed, "restart")
        record(deployed.progress, "committed")
        _start(deployed, held=deployed.guarded and not deployed.group_status)
        return_to_edge(deployed.drain, deployed.progress)

    _change("restart", recipe, steps)


def resume(recipe: str | None = None) -> None:
    """Start the group on the inventory's hosts after a stop or a failure; wait until it is ready.

    Args:
        recipe: as for `stop`.
    """

    def steps(deployed: DeployedGroup) -> None:
        _read_units(deployed)
        _start(deployed, held=deployed.guarded)

    _change("resume", recipe, steps)


def _change(command: Command, recipe: str | None, steps: Callable[[DeployedGroup], None]) -> None:
    """Take a host of the group through the steps of one change, under the group's lock."""
    deployed = _deployed(current_state(), command, recipe)
    if current_host().name not in deployed.progress.hosts:  # it is leaving, or has no part of the group
        return

    def returns(host: str) -> dict[str, Any] | None:
        return back(host == deployed.head, deployed.units.get(host, ())) if command == "restart" else None

    lock(deployed.progress, returns)
    steps(deployed)
    finish(deployed.progress)


def _end(deployed: DeployedGroup, command: str) -> None:
    """End what runs: by the guards where the head's answers, else by systemd."""
    if deployed.group_status:
        _end_generation(deployed, command)
    elif deployed.guarded and command == "stop":
        _end_and_hold(deployed)
    else:
        stop_ranks(deployed.progress, tuple(reversed(deployed.units.get(current_host().name, ()))))
    gate(deployed.progress, "the stop of the group")


def _start(deployed: DeployedGroup, *, held: bool) -> None:
    """Start the group in its order and wait until it is ready; where a guard may hold it, lift that first."""
    if held:
        lift_hold(deployed.progress, deployed.group)
    start_ranks(deployed.progress)
    gate(deployed.progress, "bring-up")


@stage("Bring up")
def _read_units(deployed: DeployedGroup) -> None:
    """Have systemd read units that it is behind with: a new life of the guard would be one of an older plan."""
    host = current_host()
    read = operations.files_committed(
        [], [], [], host.name in deployed.stale, name="systemd knows the group's units as they are"
    )
    deployed.progress.note(host, "units", read)


@stage("Bring up")
def _end_and_hold(deployed: DeployedGroup) -> None:
    """End every rank without the head's guard, and have each host hold the group by itself."""
    host, progress = current_host(), deployed.progress
    # A guard whose head is off tells it of the stop when it returns; one whose head is there without a guard would wait
    # for it in vain.
    stays = not deployed.head
    units = tuple(reversed(deployed.units.get(host.name, ())))
    work = FunctionCommand(guard_commands.hold, [deployed.group, units, stays], {})
    progress.note(host, "stop", operations.carried_out(work, name="no rank runs, and this host holds the group"))


@stage("Bring up")
def _report_absent(deployed: DeployedGroup) -> None:
    """Say what becomes of hosts that a stop did without."""
    question = FunctionCommand(_say_absent, [deployed], {})
    deployed.progress.note(current_host(), "absent hosts", operations.holds(question, name="absent hosts stay stopped"))


def _say_absent(_state: State, host: Host, deployed: DeployedGroup) -> bool:
    names = ", ".join(deployed.unreached)
    if not names or host.name != deployed.progress.hosts[0]:
        return True
    if not deployed.guarded:
        fail(host, f"{names} could not be reached: what runs there was not stopped, and it starts at a boot")
        return False
    who = f"the head {deployed.head} keeps" if deployed.head else "the guards of the other hosts keep"
    say(host, f"{names} could not be reached: {who} the group stopped when it returns, until it is resumed")
    return True


@stage("Bring up")
def _end_generation(deployed: DeployedGroup, command: str) -> None:
    host, progress = current_host(), deployed.progress
    work = None
    if host.name == deployed.head and not (command == "stop" and at_rest(deployed.group_status)):
        since = str(deployed.group_status["generation"])
        absent = [member["host"] for member in deployed.group_status["members"] if member["host"] not in progress.hosts]
        work = FunctionCommand(
            guard_commands.end_generation, [deployed.group, command, since, deployed.drain_seconds, absent], {}
        )
    outcome = "the guards have stopped the group" if command == "stop" else "a new generation starts"
    progress.note(host, command, operations.carried_out(work, name=outcome))


def _deployed(state: State, command: Command, recipe: str | None) -> DeployedGroup:
    """Return the deployed group that this run is about, with the change that it makes.

    Raises:
        DeployError: as `deployed_group.find` refuses.
    """

    def found() -> DeployedGroup:
        deployed = find(state, command, recipe)
        progress, digest = deployed.progress, deployed.digest
        progress.transaction = begin(
            deployed.group, command, digest, digest, hosts=progress.hosts, found=deployed.found
        )
        _say_beforehand(deployed, command)
        return deployed

    return _groups.get(state, "", found)


def _say_beforehand(deployed: DeployedGroup, command: str) -> None:
    """Have asked what a stop costs, and keep what holds at the end."""
    hosts = deployed.progress.hosts
    if command != "resume" and not at_rest(deployed.group_status):
        measured = last_start(deployed.history, deployed.digest)
        start = deployed.group_status.get("last_start") if measured is None else measured
        words.ask(stop_question(command, deployed.group, hosts, deployed.drain_seconds, start))
    if command == "stop":
        until = f"until muster resume {words.where}" if deployed.guarded else "until the next boot, or muster restart"
        words.done(f"{deployed.group} is stopped on {', '.join(hosts)}, {until}")
    else:
        words.done(f"{deployed.group} is ready on {', '.join(hosts)}")
