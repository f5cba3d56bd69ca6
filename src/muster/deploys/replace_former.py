"""Replace former: the former group is stopped for the new one, kept down, and taken away once the new one serves."""

from __future__ import annotations

from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.change_steps import finish, lock, record
from muster.deploys.former_group import Former
from muster.deploys.remove import taking_away
from muster.deploys.shared import polling
from muster.deploys.shared.group_run import GroupRun
from muster.deploys.shared.progress import Progress
from muster.hosts import operations
from muster.hosts.program_operation import Later, Session
from muster.hosts.pyinfra_types import current_host, stage
from muster.hosts.run_words import words
from muster.on_host import places


def lock_former(former: Former) -> None:
    """Take its lock on every host of it, or on none."""
    lock(former.progress, former.way)


@stage("Former group")
def stop_former(former: Former, run: GroupRun) -> None:
    """Stop it as a deploy stops a group: its guards drain requests in flight first."""
    host = current_host()
    command = FunctionCommand(_stop, [former, run.progress], {}) if former.units.get(host.name) else None
    run.progress.note(host, "stop", operations.carried_out(command, name=f"no rank of {former.group} runs"))


def _stop(state: State, host: Host, former: Former, progress: Progress) -> bool:
    # Its firewall goes last: it would keep out hosts that only the new group has.
    firewall = (places.firewall_unit(former.group),)
    return polling.stop(state, host, former.units[host.name], progress) and polling.stop(
        state, host, firewall, progress
    )


def keep_down(former: Former, run: GroupRun) -> None:
    """Have its hosts start it no more, after a reboot neither: from here on the new group is what comes up."""
    record(former.progress, "committing")
    _disable(former, run)


@stage("Former group")
def _disable(former: Former, run: GroupRun) -> None:
    host = current_host()
    units = former.units.get(host.name)
    request = {"do": "disable", "units": units}
    session = Session(
        "run_units", Later(lambda: {**request, "fence": former.progress.fence(host.name)}), f"disable {former.group}"
    )
    operation = operations.carried_out(session if units else None, name=f"{former.group} does not start at boot")
    run.progress.note(host, "disable", operation)


def take_away(former: Former) -> None:
    """Take files, units and state of it off every host; engines and weights stay."""
    _remove(former)
    finish(former.progress)


@stage("Former group")
def _remove(former: Former) -> None:
    name = current_host().name
    question = FunctionCommand(_goes, [former], {})
    operations.holds(question, name=f"nothing needs {former.group} any more")
    session = taking_away(former.request, former.progress) if name in former.there else None
    operations.carried_out(session, name=f"{former.group} is gone")


def _goes(_state: State, host: Host, former: Former) -> bool:
    words.truths[former.group] = lambda: former.change.sentence
    if host.name == next(iter(former.there)):
        words.done(f"{former.group}, its former self, is gone from {', '.join(former.there)}")
    return True
