"""Prune: after a verified deploy, releases of the engine that nothing needs are removed; the one before is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.shared.group_run import GroupRun
from muster.hosts import operations
from muster.hosts.program_operation import Session
from muster.hosts.pyinfra_types import stage
from muster.hosts.say import say
from muster.on_host.in_words import size


@stage("Prune")
def prune(run: GroupRun) -> None:
    """Remove, on each host, every release but the running one, the one before, and those that any plan there names."""
    release = run.plan.release
    # A release can only have become useless by a run that changed something.
    if release.managed and run.decision.changes:
        directory, _, running = release.path.rpartition("/")
        session = Session("prune_releases", {"engines": directory, "running": running}, "prune releases", _report)
        operations.carried_out(session, name="of the engine, two releases are kept")


def _report(_state: State, host: Host, answer: Mapping[str, Any]) -> bool:
    if answer["removed"]:
        say(host, in_words(answer))
    return True


def in_words(answer: Mapping[str, Any]) -> str:
    """Return what was removed and kept, in one line."""
    removed = ", ".join(f"{name} ({size(count)})" for name, count in answer["removed"].items()) or "nothing"
    kept = ", ".join(f"{name} ({why})" for name, why in answer["kept"].items())
    return f"releases removed: {removed}; kept: {kept}"
