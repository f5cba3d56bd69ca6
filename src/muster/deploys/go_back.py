"""Go back: when a change fails after it has stopped or started ranks, the plan that was verified last serves again.

pyinfra drops a host whose operation has failed, and ends the run when none is left. So the way back is no operation: it
runs when the last host of the group fails, while the run still holds everything that it has opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pyinfra import logger
from pyinfra.api.host import Host
from pyinfra.api.state import BaseStateCallback, State

from muster.deploys import put_back
from muster.deploys.former_group import Former
from muster.deploys.shared.group_run import GroupRun
from muster.deploys.shared.progress import Progress
from muster.errors import Refusal
from muster.hosts.all_hosts import hosts_of
from muster.hosts.once import OncePerRun
from muster.hosts.pyinfra_types import operation_name
from muster.hosts.run_words import words
from muster.plan.way_back import WayBack, failed, failed_rename


@dataclass
class GoBack(BaseStateCallback):
    """What one run does when its change has failed on every host.

    Args:
        group: its name.
        planned: digest of the plan that is to run.
        progress: of the change.
        back: the plan to go back to.
        former: has the group that is replaced serve again, and returns what is true then.
    """

    group: str
    planned: str
    progress: Progress
    back: WayBack
    former: Callable[[State, str], str] | None = None
    fallen: set[str] = field(default_factory=set)
    reason: str = ""

    def operation_host_error(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        """Note a host's failure; the last one to fail takes all of them back."""
        if host.name not in self.progress.hosts:
            return
        self.reason = self.reason or f"{host.name} failed at '{operation_name(state, op_hash)}'"
        self.fallen.add(host.name)
        acted = self.progress.stopping or self.progress.started
        if acted and not self.progress.settled and self.fallen >= set(self.progress.hosts):
            self._go(state)

    def _go(self, state: State) -> None:
        if self.former is not None:
            words.conclude(self.former(state, self.progress.failure or self.reason))
            return
        problem, began, ended = "", self.progress.stopping, 0.0
        if self.back.plan is not None:
            logger.info(f"--> the group goes back to plan {self.back.plan.digest}, verified {self.back.plan.verified}")
            hosts = {name: host for name, host in hosts_of(state).items() if name in self.progress.hosts}
            try:
                restored = put_back.find(state, hosts, self.group, self.back.plan.digest)
                problem = put_back.put_back(state, hosts, restored, self.progress)
                ended = restored.deployed.progress.ready_at
            except Refusal as refusal:
                problem = refusal.found
        seconds = ended - began if began and ended else None
        words.conclude(failed(self.planned, self.progress.failure or self.reason, self.back, problem, seconds))


def register(state: State, run: GroupRun, former: Former | None) -> None:
    """Have a deploy go back by itself if it fails; whichever host asks first does it for all.

    Args:
        state: pyinfra's.
        run: of the group.
        former: the group that it replaces: where the group itself has no plan to go back to, that one serves again.
    """
    _handlers.get(state, run.plan.group, lambda: _handler(state, run, former))


def _handler(state: State, run: GroupRun, former: Former | None) -> GoBack:
    handler = GoBack(run.plan.group, run.plan.digest, run.progress, run.back)
    if former is not None and run.decision.restart and run.back.plan is None:
        handler.former = partial(_former_serves, run=run, former=former)
    state.add_callback_handler(handler)
    return handler


def _former_serves(state: State, reason: str, run: GroupRun, former: Former) -> str:
    began, planned = run.progress.stopping, run.plan.digest
    try:
        if former.restored is not None:
            logger.info(f"--> group {former.group} takes the place of {run.plan.group} again")
        problem = former.serve_again(state, run)
    except Refusal as refusal:
        problem = refusal.found
    if problem:
        again = f"--data group={former.group} --data former_group={run.plan.group}"
        words.advice = f"muster deploy {words.where} with other settings, or with {again} to have {former.group} back"
    seconds = former.served_at - began if former.served_at and began else None
    return failed_rename(planned, reason, former.group, former.back, problem, seconds)


_handlers: OncePerRun[GoBack] = OncePerRun()
