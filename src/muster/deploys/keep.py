"""Keep: every host keeps the plan that has just been verified, to be put back without a download or build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from muster.deploys.shared.group_run import GroupRun
from muster.deploys.shared.operator import operator
from muster.deploys.verify import request as verify_request
from muster.hosts import operations
from muster.hosts.once import OncePerRun
from muster.hosts.program_operation import Later, Session
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.on_host import kept_plans
from muster.plan import plan_history
from muster.plan.restart_decision import is_base
from muster.spec.settings import Settings

_lacking: OncePerRun[frozenset[str]] = OncePerRun()
"""Hosts that do not keep the plan of this run as their newest."""


@stage("Keep")
def keep(run: GroupRun) -> None:
    """Keep the plan on every host; nothing to do where each keeps it as the newest and nothing was started."""
    host = current_host()
    lacking = _lacking.get(current_state(), run.plan.group, lambda: _lack(run))
    if lacking:
        session = Session("kept_plans", Later(lambda: _request(run, host.name)), "keep the verified plan")
        keeping = operations.carried_out(session if host.name in lacking else None, name="the verified plan is kept")
        run.progress.note(host, "keep", keeping)


def _lack(run: GroupRun) -> frozenset[str]:
    """Return the hosts whose newest kept plan is another one; all of them where something was started."""
    if run.decision.restart:
        return frozenset(run.plan.hosts)
    newest = {name: plan_history.history({name: run.observations[name]["kept"]})[:1] for name in run.plan.hosts}
    return frozenset(name for name, plans in newest.items() if [plan.digest for plan in plans] != [run.plan.digest])


def _request(run: GroupRun, name: str) -> dict[str, Any]:
    return {"do": "keep", "group": run.plan.group, "plan": _plan(run, name)}


def _plan(run: GroupRun, name: str) -> dict[str, Any]:
    """Return what a host keeps; it reads the text of the files itself, as it has just been verified."""
    plan, host = run.plan, run.plan.hosts[name]
    return {
        "version": kept_plans.FORM,
        "digest": plan.digest,
        "group": plan.group,
        "recipe": plan.recipe,
        "label": plan.label,
        "release": {"id": plan.release.id, "path": plan.release.path, "managed": plan.release.managed},
        "hosts": list(plan.hosts),
        "units": list(host.units),
        "drain_seconds": plan.drain_seconds,
        **verified_now(run.history, plan.digest),
        "seconds": asdict(_seconds(run)),
        "settings": given(run.settings),
        "secrets": {secret.path: run.secrets.sha256[secret.path] for secret in plan.secrets},
        "verify": verify_request(plan, host),
        "files": {
            path: {
                "sha256": file.sha256,
                "mode": file.mode,
                "owner": file.owner,
                "group": file.group,
                "base": is_base(path),
            }
            for path, file in host.files.items()
        },
    }


def _seconds(run: GroupRun) -> plan_history.Seconds:
    """Return how long this run's change took; what it did not measure is as it was."""
    if run.progress.seconds.start is not None:
        return run.progress.seconds
    before = next((plan.seconds for plan in run.history if plan.digest == run.plan.digest), None)
    return before or plan_history.Seconds()


def verified_now(history: Sequence[plan_history.KeptPlan], digest: str) -> dict[str, Any]:
    """Return what is kept of a verification: its place in the history, when it was, and whose."""
    return {
        "number": plan_history.next_number(history, digest),
        "verified": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "by": operator(),
    }


def given(settings: Settings) -> dict[str, Any]:
    """Return the settings that are not as muster sets them by itself."""
    usual = Settings().flat()
    return {name: value for name, value in settings.flat().items() if value != usual[name]}
