"""Bring up: the whole group stops together, then starts in the plan's order, each layer when the one before is up."""

from __future__ import annotations

from pyinfra.api.command import FunctionCommand

from muster import operations
from muster.deploys import slices
from muster.deploys.group_run import GroupRun
from muster.typed import current_host, stage


@stage("Bring up")
def stop_ranks(run: GroupRun) -> None:
    """Stop every rank of the group if anything on any host has changed."""
    host = current_host()
    units = run.decision.hosts[host.name].stop
    stopped = operations.carried_out(
        FunctionCommand(slices.stop, [run, units], {}) if units else None, name="no rank of an older plan runs"
    )
    run.note(host, "stop", stopped)


@stage("Bring up")
def start_ranks(run: GroupRun) -> None:
    """Start the layers one after the other and wait for each; the last one is up when the group is ready."""
    host = current_host()
    last = len(run.plan.steps) - 1
    for number in host.loop(range(len(run.plan.steps))):  # type: ignore[no-untyped-call]
        step = run.plan.steps[number]
        concerned = host.name in step.units or any(check.host == host.name for check in step.checks)
        command = FunctionCommand(slices.start, [run, number], {}) if run.decision.restart and concerned else None
        started = operations.carried_out(command, name=f"{step.text} up")
        run.note(host, step.text, started)
        if number == last and not run.decision.restart and not run.decision.ready:
            ready = operations.holds(FunctionCommand(slices.wait, [run, number], {}), name="the group is ready")
            run.note(host, "ready", ready)
