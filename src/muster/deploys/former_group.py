"""Former group: what a group was called before on these hosts, whether a run may replace it, and its way back.

`former_group` names it. Its files stay in place until the new group is verified: a change that fails starts it again.
Both groups are changed by such a run: it holds the locks of both, and each has its own record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyinfra import logger
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys import put_back
from muster.deploys.change_steps import back
from muster.deploys.leave import gone
from muster.deploys.put_back import Restored
from muster.deploys.remove import begin_removal, drain_seconds, look_at, removal_request, units_to_stop
from muster.deploys.shared import polling
from muster.deploys.shared.group_run import GroupRun
from muster.deploys.shared.progress import Progress
from muster.deploys.shared.stop_question import rename_question
from muster.deploys.shared.transaction import Transaction
from muster.errors import Refusal
from muster.hosts.all_hosts import each, hosts_of
from muster.hosts.once import OncePerRun
from muster.hosts.run_programs import ask_all, run_program
from muster.hosts.run_words import words
from muster.hosts.say import fail
from muster.on_host.in_words import size
from muster.plan import change as changes
from muster.plan.change import Found
from muster.plan.plan_history import history
from muster.plan.way_back import WayBack, way_back

_PROBE_SECONDS = 150


@dataclass(frozen=True)
class Former:
    """The group that a run replaces.

    Args:
        group: its name.
        request: that takes it off a host.
        there: host -> what `muster.on_host.removable` answered; the head first.
        units: host -> its units, as far as they are there.
        progress: its hosts, with the change that its removal is.
        change: the same.
        back: the plan of it that serves again should the new group fail.
        restored: that plan as its hosts can put it back; None without one.
        returns: whether hosts start it by themselves when the run is cut before the new group's files are exchanged.
    """

    group: str
    request: Mapping[str, Any]
    there: Mapping[str, Mapping[str, Any]]
    units: Mapping[str, tuple[str, ...]]
    progress: Progress
    change: Transaction
    back: WayBack
    restored: Restored | None
    returns: bool

    @property
    def drain_seconds(self) -> int:
        """How long its stop waits for requests in flight."""
        return drain_seconds(self.there, self.group)

    def way(self, host: str) -> Mapping[str, Any] | None:
        """Return what has a host start it again by itself; None where it is to stay down."""
        return back(host == next(iter(self.there)), self.units[host]) if self.returns else None

    def serve_again(self, state: State, run: GroupRun) -> str:
        """Take the new group away and put this one back; return what went wrong, empty where it serves.

        Raises:
            Refusal: hosts do not answer.
        """
        if self.restored is None:
            return self.back.why
        new = run.plan.group
        hosts = {name: host for name, host in hosts_of(state).items() if name in run.plan.hosts}
        request = removal_request(run.settings, groups=[new])
        there = look_at(state, hosts, request)
        if run.progress.transaction is not None:
            run.progress.transaction.finish()  # left alone, no host starts the new group from here on

        def take(host: Host) -> bool:
            units = _ranks(there[host.name])
            if units and not polling.stop(state, host, units, run.progress):
                return False
            answer = run_program(state, host, "remove_muster", {**request, "fence": run.progress.fence(host.name)})
            if "error" in answer:
                fail(host, answer["error"])
            return "error" not in answer

        wrong = [name for name, done in each(hosts.values(), take).items() if not done]
        if wrong:
            return f"{', '.join(wrong)} failed at 'take group {new} away'"
        return put_back.put_back(state, {name: hosts[name] for name in self.there}, self.restored, self.progress)

    @property
    def served_at(self) -> float:
        """When it was ready again; 0 where it was not."""
        return self.restored.deployed.progress.ready_at if self.restored is not None else 0.0

    def announce(self, run: GroupRun) -> None:
        """Say what becomes of it, and have it asked."""
        hosts = list(self.there)
        words.ask(rename_question(self.group, run.plan.group, hosts, self.drain_seconds))
        total = size(sum(sum(answer["paths"].values()) for answer in self.there.values()))
        logger.info(f"group {self.group} on {', '.join(hosts)} is replaced; {total} of it go once the group serves")
        if run.decision.restart and run.back.plan is None:
            logger.info(f"  {self.back.announcement_of(self.group)}")


_formers: OncePerRun[Former | None] = OncePerRun()


def of(state: State, run: GroupRun) -> Former | None:
    """Return the group that a run replaces; None where the hosts have nothing of it.

    Raises:
        DeployError: it cannot be replaced: hosts of it are missing, or somebody is changing it; nothing was touched.
    """
    return _formers.get(state, run.plan.group, lambda: _look(state, run) if run.former_hosts else None)


def _look(state: State, run: GroupRun) -> Former | None:
    """Ask every host of the plan what it has of the former group."""
    group = str(run.settings.former_group)
    hosts = {name: host for name, host in hosts_of(state).items() if name in run.plan.hosts}
    request = removal_request(run.settings, groups=[group])
    answers = {name: answer for name, answer in look_at(state, hosts, request).items() if answer["going"]}
    there = dict(sorted(answers.items(), key=lambda item: _rank(item[1], group)))
    change = begin_removal(there)
    if change is None:
        return None
    own = {name: hosts[name] for name in there}
    seen = ask_all(state, own.values(), "probe_group", {"group": group}, seconds=_PROBE_SECONDS)
    require_all_here(group, there, seen, gone(run.plan, seen))
    installed = [
        name for name, answer in run.observations.items() if answer["changes"].get(run.plan.group, {}).get("installed")
    ]
    if installed and change.unfinished is None:
        raise Refusal(
            f"{', '.join(installed)}: group {run.plan.group} is there beside {group}, its former_group",
            needed="one of the two: a group takes the place of its former self once",
            fix=f"muster remove INVENTORY --group {group}, or unset former_group; nothing was touched",
        )
    require_whole(group, change.found)
    undone = way_back(
        history({name: answer["kept"] for name, answer in seen.items()}),
        tuple(there),
        run.plan.digest,
        keep_failed=run.settings.keep_failed,
    )
    if any(answer["held"] for answer in seen.values()):
        undone = WayBack(None, f"group {group} was stopped before")
    restored = None
    if undone.plan is not None and run.decision.restart and run.back.plan is None:
        try:
            restored = put_back.find(state, own, group, undone.plan.digest)
        except Refusal as refusal:
            undone = WayBack(None, refusal.found)
    units = {name: _ranks(answer) for name, answer in there.items()}
    progress = Progress(tuple(there), (), 0, transaction=change)
    returns = True
    if run.progress.transaction is not None:
        run.progress.transaction.replaces = group
        returns = may_return(run.progress.transaction.found)
    return Former(group, request, there, units, progress, change, undone, restored, returns)


def _ranks(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a host's units that run ranks; the one that brings it back after a reboot comes and goes with a change."""
    return tuple(unit for unit in units_to_stop(answer) if "@" not in unit)


def _rank(answer: Mapping[str, Any], group: str) -> int:
    return int(answer["groups"].get(group, {}).get("node_rank", 1 << 30))


def require_all_here(
    group: str,
    there: Mapping[str, Mapping[str, Any]],
    seen: Mapping[str, Mapping[str, Any]],
    missing: Mapping[str, str],
) -> None:
    """Refuse to replace a group that has hosts which the new one has not: ranks would run on there.

    Args:
        group: its name.
        there: host -> what `muster.on_host.removable` answered.
        seen: host -> what `muster.on_host.probe_group` answered about it.
        missing: name -> address of the hosts that its guards know and the plan has not.

    Raises:
        Refusal: such hosts, by name where the group's guards know them.
    """
    manifests = [answer["groups"][group] for answer in there.values() if group in answer["groups"]]
    wanted = max((int(manifest.get("hosts", 0)) for manifest in manifests), default=0)
    names = [f"{name} ({address})" for name, address in missing.items()]
    cut = any(answer["changes"].get(group, {}).get("record") for answer in seen.values())
    if not names and not cut and len(manifests) < wanted:
        names = [f"{wanted - len(manifests)} of its {wanted} hosts"]
    if names:
        raise Refusal(
            f"former_group {group}: {', '.join(names)} not among the hosts of this run",
            needed="every host of the former group in the inventory, and none of them leaving",
            fix="rename the group first, then let hosts leave; or muster remove with the inventory that has them all"
            "; nothing was touched",
        )


def require_whole(group: str, found: Mapping[str, Found]) -> None:
    """Refuse to replace a group whose files are being exchanged: the run would leave them mixed, and none to come back.

    Args:
        group: its name.
        found: what each of its hosts shows of its changes.

    Raises:
        Refusal: the hosts whose exchange was cut.
    """
    cut = changes.settlement(found).forward
    if cut:
        raise Refusal(
            f"{', '.join(cut)}: a change of group {group}, the former_group, was cut while files were exchanged",
            needed="a former group whose files are of one plan",
            fix=f"deploy {group} by its own name first, which ends that change; nothing was touched",
        )


def may_return(found: Mapping[str, Found]) -> bool:
    """Return whether hosts that are left alone may start the former group: none has, or is about to get, the new one.

    Args:
        found: what each host shows of changes of the new group; a run ends a cut exchange of it before anything else.
    """
    return not any(state.installed for state in found.values()) and not changes.settlement(found).forward
