"""Bring up: the whole group stops together, then starts in the plan's order, each layer when the one before is up."""

from __future__ import annotations

from pyinfra.api.command import FunctionCommand

from muster.deploys.shared import guard_commands, polling
from muster.deploys.shared.progress import Progress
from muster.hosts import operations
from muster.hosts.pyinfra_types import current_host, stage


@stage("Bring up")
def stop_ranks(progress: Progress, units: tuple[str, ...]) -> None:
    """Stop ranks, every one of the group or none.

    Args:
        progress: the group's.
        units: those of this host that must not run on.
    """
    host = current_host()
    command = FunctionCommand(polling.stop, [units, progress], {}) if units else None
    progress.note(host, "stop", operations.carried_out(command, name="no rank of an older plan runs"))


@stage("Bring up")
def start_ranks(progress: Progress) -> None:
    """Start the layers one after the other and wait for each; the last one is up when the group is ready."""
    host = current_host()
    for number in host.loop(range(len(progress.steps))):
        step = progress.steps[number]
        concerned = host.name in step.units or any(check.host == host.name for check in step.checks)
        command = FunctionCommand(polling.start, [progress, number], {}) if concerned else None
        progress.note(host, step.text, operations.carried_out(command, name=f"{step.text} up"))


@stage("Bring up")
def await_ready(progress: Progress) -> None:
    """Wait until a group that runs as planned is ready; starts nothing."""
    question = FunctionCommand(polling.wait, [progress, len(progress.steps) - 1], {})
    progress.note(current_host(), "ready", operations.holds(question, name="the group is ready"))


@stage("Bring up")
def lift_hold(progress: Progress, group: str) -> None:
    """Let a group start that a stop or a spent budget holds; every host is asked."""
    host = current_host()
    command = FunctionCommand(guard_commands.resume, [group, host.name == progress.hosts[0]], {})
    progress.note(host, "resume", operations.carried_out(command, name="nothing holds the group"))
