"""From hosts with a driver and SSH to a group that answers through every rank; a second run changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from muster.deploys import go_back
from muster.deploys.base_system import base
from muster.deploys.bring_up import await_ready, lift_hold, start_ranks, stop_ranks
from muster.deploys.change_steps import finish, lock, record, returns
from muster.deploys.check import check
from muster.deploys.former_group import Former
from muster.deploys.install_engine import engine
from muster.deploys.keep import keep
from muster.deploys.leave import leave
from muster.deploys.place_files import commit_files, stage_files
from muster.deploys.prune import prune
from muster.deploys.replace_former import keep_down, lock_former, stop_former, take_away
from muster.deploys.shared.gate import gate
from muster.deploys.shared.group_run import GroupRun
from muster.deploys.stage_weights import stage_bundle, stage_weights
from muster.deploys.summary import summary
from muster.deploys.verify import verify
from muster.hosts.pyinfra_types import current_host, current_state

Step = Callable[[GroupRun], None]


def serve(recipe: str, group: str = "", take_out: Step | None = None, prove: Step | None = None) -> None:
    """Bring a recipe up on the inventory's hosts, or on those of one of its groups.

    Args:
        recipe: its name, such as `kimi-k2-instruct`.
        group: of the inventory, where that has several.
        take_out: called before ranks are stopped: has clients go elsewhere.
        prove: called once a changed group is verified: what fails there fails the change.
    """
    run, former = check(recipe, group)
    if current_host().name in run.plan.hosts:
        _bring_up(run, recipe, former, take_out, prove)
    leave(run)


def _bring_up(run: GroupRun, recipe: str, former: Former | None, take_out: Step | None, prove: Step | None) -> None:
    """Take a host of the group through all stages, or past those that would find nothing to do on any host."""
    go_back.register(current_state(), run, former)
    if run.progress.transaction is not None:
        _change(run, recipe, former, take_out)
    else:
        stage_bundle(run.inventory_group)
        stage_weights(recipe, run.inventory_group, changes=False, plan=run.plan)
    verify(run)
    if prove is not None and run.progress.transaction is not None:
        gate(run.progress, "every rank's answer")
        prove(run)
    gate(run.progress, "the verification", settles=True)
    keep(run)
    finish(run.progress)
    if former is not None:
        take_away(former)
    prune(run)
    summary(run)


def _change(run: GroupRun, recipe: str, former: Former | None, take_out: Step | None) -> None:
    """Take a host of the group through everything that changes it or waits for it."""
    if former is not None:
        lock_former(former)
    lock(run.progress, partial(returns, run))
    base(run)
    stage_bundle(run.inventory_group)
    engine(run)
    stage_weights(recipe, run.inventory_group, plan=run.plan)
    stage_files(run)
    gate(run.progress, "everything that can be done while the old group runs")
    if take_out is not None:
        take_out(run)
        gate(run.progress, "the way out of the edge")
    if former is not None:
        record(former.progress, "stopping")
    if run.decision.restart:
        record(run.progress, "stopping")
    stop_ranks(run.progress, run.decision.hosts[current_host().name].stop)
    if former is not None:
        stop_former(former, run)
    gate(run.progress, "the stop of the old group")
    if former is not None:
        keep_down(former, run)
        gate(run.progress, "the former group's end at boot")
    if run.decision.restart:
        record(run.progress, "committing")
    commit_files(run)
    gate(run.progress, "files and units")
    if run.decision.restart:
        record(run.progress, "committed")
    if run.decision.held:
        lift_hold(run.progress, run.plan.group)
    if run.decision.restart:
        start_ranks(run.progress)
    elif not run.decision.ready:
        await_ready(run.progress)
    gate(run.progress, "bring-up")
    if run.decision.restart:
        record(run.progress, "started")
