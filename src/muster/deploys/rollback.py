"""Roll back: a verified plan that the hosts keep takes the place of the one that is there; no download, no build."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.state import State

from muster.deploys import deployed_group, put_back
from muster.deploys.bring_up import lift_hold, start_ranks
from muster.deploys.change_steps import finish, lock, record
from muster.deploys.edge_drain import EdgeDrain
from muster.deploys.go_back import GoBack
from muster.deploys.keep import verified_now
from muster.deploys.put_back import Restored
from muster.deploys.shared.gate import gate
from muster.deploys.shared.stop_question import stop_question
from muster.deploys.shared.transaction import begin
from muster.deploys.way_out import leave_edge, return_to_edge, way_out
from muster.hosts import operations
from muster.hosts.once import OncePerRun
from muster.hosts.program_operation import Later, Session
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.hosts.run_programs import ask_all
from muster.hosts.run_words import words
from muster.plan import change as changes
from muster.plan import plan_history
from muster.plan.plan_history import KeptPlan
from muster.plan.way_back import way_back
from muster.spec import inventory, inventory_source

_PROBE_SECONDS = 150


@dataclass(frozen=True)
class Rollback:
    """One rollback, shared by the hosts of a run.

    Args:
        history: the verified plans that the hosts keep.
        target: the one that is put back.
        restored: what the hosts said of it.
        drain: how the group gets out of the edges of its fleet meanwhile; None where it does not.
    """

    history: tuple[KeptPlan, ...]
    target: KeptPlan
    restored: Restored
    drain: EdgeDrain | None

    @property
    def deployed(self) -> deployed_group.DeployedGroup:
        """The group as the target describes it."""
        return self.restored.deployed


_rollbacks: OncePerRun[Rollback] = OncePerRun()


def rollback(digest: str = "", recipe: str | None = None) -> None:
    """Put a kept plan back on the inventory's hosts, start it and verify it.

    Args:
        digest: of the plan, or how it begins; "" takes the newest that is not on the hosts.
        recipe: of the group; may be left out where the hosts have one group.
    """
    run = _rollbacks.get(current_state(), digest, lambda: _prepare(current_state(), digest, recipe))
    progress = run.deployed.progress
    if current_host().name not in progress.hosts:  # it is leaving, or has no part of the group
        return
    lock(progress, run.restored.returns)
    _put("stage", run)
    gate(progress, "everything that can be done while the group runs")
    leave_edge(run.drain, progress)
    record(progress, "stopping")
    _stop(run)
    gate(progress, "the stop of the group")
    record(progress, "committing")
    _put("commit", run)
    gate(progress, "files and units")
    record(progress, "committed")
    if run.deployed.guarded:
        lift_hold(progress, run.deployed.group)
    start_ranks(progress)
    gate(progress, "bring-up")
    _verify(run)
    gate(progress, "the verification", settles=True)
    _keep(run)
    finish(progress)
    return_to_edge(run.drain, progress)


def _prepare(state: State, digest: str, recipe: str | None) -> Rollback:
    """Choose the plan, and ask every host whether it can put it back.

    Raises:
        Refusal: there is no such plan, or hosts lack what it needs; nothing was touched.
    """
    scope = inventory.scope_of(state.inventory, recipe)
    hosts = deployed_group.reached_in(state, scope)
    manifests = ask_all(state, hosts.values(), "probe_group", {}, seconds=_PROBE_SECONDS)
    groups = {name: answer["groups"] for name, answer in manifests.items()}
    group = deployed_group.meant(scope, hosts, groups, recipe)
    kept = ask_all(state, hosts.values(), "kept_plans", {"do": "list", "group": group}, seconds=_PROBE_SECONDS)
    history = plan_history.history({name: answer["plans"] for name, answer in kept.items()})
    found = changes.seen({name: answer["changes"].get(group, {}) for name, answer in manifests.items()})
    changes.require_free(group, found)
    there = {there.get(group, {}).get("digest", "") for there in groups.values()}
    running = there.pop() if len(there) == 1 else ""
    target = plan_history.choose(history, tuple(hosts), running, digest)
    mine = {name: host for name, host in hosts.items() if name in target.hosts}
    restored = put_back.find(state, mine, group, target.digest)
    progress = restored.deployed.progress
    words.about(inventory_source.path_of(state.inventory), target.recipe, scope.name)
    progress.transaction = begin(group, "rollback", running, target.digest, hosts=progress.hosts, found=found)
    cut = progress.transaction.unfinished
    if cut is not None:
        logger.warning(f"{cut.sentence}; {cut.next_step(target.digest)}")
    logger.info(f"group {group} goes back to plan {target.digest}, verified {target.verified} by {target.by}")
    drain = next((plan.drain_seconds for plan in history if plan.digest == running), restored.deployed.drain_seconds)
    out = None
    if any(restored.present.values()):
        out = way_out(state, scope, drain, restored.deployed.manifests)
        start = plan_history.last_start(history, target.digest)
        words.ask(stop_question("restart", group, target.hosts, drain, start))
        logger.info(f"  {plan_history.expected(history, target.digest, drain)}")
    words.done(f"{group} serves plan {target.digest} again")
    former = way_back(history, target.hosts, target.digest)
    state.add_callback_handler(GoBack(group, target.digest, restored.deployed.progress, former))
    return Rollback(history, target, restored, out)


@stage("Files")
def _put(do: str, run: Rollback) -> None:
    names = {"stage": "the kept files are staged", "commit": "the kept files are in place"}
    command = FunctionCommand(put_back.restore, [run.restored, do], {})
    run.deployed.progress.note(current_host(), do, operations.carried_out(command, name=names[do]))


@stage("Bring up")
def _stop(run: Rollback) -> None:
    command = FunctionCommand(put_back.stop, [run.restored, run.deployed.progress], {})
    run.deployed.progress.note(
        current_host(), "stop", operations.carried_out(command, name="no rank of the former plan runs")
    )


@stage("Verify")
def _verify(run: Rollback) -> None:
    question = FunctionCommand(put_back.verified, [run.restored], {})
    name = "every rank answers, and runs what was kept"
    run.deployed.progress.note(current_host(), "verify", operations.holds(question, name=name))


@stage("Keep")
def _keep(run: Rollback) -> None:
    def request() -> dict[str, Any]:
        now = verified_now(run.history, run.target.digest)
        renewed = {**now, "seconds": asdict(run.deployed.progress.seconds)}
        return {"do": "renew", "group": run.deployed.group, "digest": run.target.digest, "plan": renewed}

    session = Session("kept_plans", Later(request), "keep it as the newest")
    run.deployed.progress.note(
        current_host(), "keep", operations.carried_out(session, name="the verified plan is kept as the newest")
    )
