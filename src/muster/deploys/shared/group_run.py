"""One run over one group, shared by all its hosts: plan, observations, decision, and progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.shared.progress import Progress
from muster.deploys.shared.transaction import begin
from muster.errors import Refusal
from muster.hosts import uv_binary
from muster.hosts.all_hosts import hosts_of
from muster.hosts.once import OncePerRun
from muster.hosts.run_words import words
from muster.hosts.secret_store import Store, open_store
from muster.plan import change as changes
from muster.plan.plan_history import KeptPlan, history
from muster.plan.prepare import plan_for, plan_for_drivers
from muster.plan.restart_decision import Decision, Observation, asked, decide
from muster.plan.types import HostPlan, Plan
from muster.plan.way_back import WayBack, way_back
from muster.preflight import before_deploy as preflight
from muster.preflight.outcome import drivers_of
from muster.preflight.plan_needs import to_download
from muster.spec import inventory, inventory_source
from muster.spec.settings import Settings


@dataclass
class GroupRun:
    """What the hosts of one group share during one run.

    Args:
        plan: the whole group, with the manifest among the files.
        observations: by host.
        decision: what is to be done.
        secrets: what every secret must be.
        progress: how far the hosts are.
        settings: of the group, as the plan was made from them.
        homes: directories of the inventory, for its resolutions.
        downloads: hosts whose engine downloads weights while it starts.
        former_hosts: that have something of the group that this one replaces.
        inventory_group: that it is, of an inventory whose groups name their recipe; empty where it is all of it.
    """

    plan: Plan
    observations: Mapping[str, Observation]
    decision: Decision
    secrets: Store
    progress: Progress
    settings: Settings
    homes: tuple[Path, ...] = ()
    downloads: tuple[str, ...] = ()
    former_hosts: tuple[str, ...] = ()
    inventory_group: str = ""

    @property
    def history(self) -> tuple[KeptPlan, ...]:
        """The verified plans that the hosts kept when they were probed, newest first."""
        return history({name: seen["kept"] for name, seen in self.observations.items()})

    @property
    def back(self) -> WayBack:
        """What the group goes back to if this run fails."""
        return way_back(self.history, tuple(self.plan.hosts), self.plan.digest, keep_failed=self.settings.keep_failed)

    @classmethod
    def of(cls, state: State, recipe_name: str, group: str = "") -> GroupRun:
        """Return the run of a group, made by whichever host asks first.

        Args:
            state: pyinfra's.
            recipe_name: as the user named it.
            group: of the inventory, where that has several.

        Raises:
            DeployError: everything that speaks against it, on every host, in one text; nothing was touched.
        """
        return _runs.get(state, f"{group} {recipe_name}", lambda: _prepare(state, recipe_name, group))

    def host(self, host: Host) -> HostPlan:
        """Return the plan of one host."""
        return self.plan.hosts[host.name]


_runs: OncePerRun[GroupRun] = OncePerRun()


def _prepare(state: State, recipe_name: str, group: str) -> GroupRun:
    fleet = inventory.of_run(state.inventory, group)
    plan = plan_for(recipe_name, fleet)
    if plan.refused:
        raise DeployError(f"{plan.refused}\nnothing was touched")
    hosts = hosts_of(state)
    active = {host.name for host in state.active_hosts}
    left_out = [name for name in plan.hosts if name not in active and not state.is_host_in_limit(hosts[name])]
    unreached = {name: "no SSH session" for name in plan.hosts if name not in active and name not in left_out}

    def reached(plan: Plan) -> Plan:
        return replace(plan, hosts={name: host for name, host in plan.hosts.items() if name not in left_out})

    plan, probed = plan_for_drivers(
        plan,
        lambda variant: plan_for(recipe_name, fleet, variant),
        lambda plan: _probe(state, reached(plan), fleet.settings, unreached),
        lambda probed: drivers_of(probed.reports),
    )
    here = reached(plan)
    # A host whose answer was none is refused by the preflight, in its words.
    answered = {name: seen for name, seen in probed.observations.items() if "error" not in seen}
    found = changes.seen({name: seen["changes"].get(here.group, {}) for name, seen in answered.items()})
    changes.require_free(here.group, found)
    preflight.require_fit(state, probed, fleet.settings)
    if unreached:  # also where the check is waived
        raise DeployError(_absent(plan, list(unreached), "could not be reached over SSH"))
    store = open_store(here, probed.observations)
    exchanged = changes.settlement(found).forward
    decision = decide(here, probed.observations, store.sha256, exchanged=exchanged)
    former_hosts = having(fleet.settings.former_group, here.group, answered)
    if left_out and (decision.changes or former_hosts):
        raise DeployError(_absent(plan, left_out, "left out by --limit or --exclude"))
    if not group:  # of several, whoever leads them says which one the words are about
        scope = inventory.scope_of(state.inventory)
        words.about(inventory_source.path_of(state.inventory), plan.recipe, scope.name)
    progress = Progress(tuple(here.hosts), here.steps, here.ready_timeout, here.group if here.heals else "")
    downloads = to_download(here, probed.reports, probed.needs)
    run = GroupRun(
        here,
        probed.observations,
        decision,
        store,
        progress,
        fleet.settings,
        fleet.homes,
        downloads,
        former_hosts,
        fleet.group,
    )
    if decision.changes or former_hosts or changes.unfinished(found) is not None:
        installed = {state.installed for state in found.values()}
        before = installed.pop() if len(installed) == 1 else ""
        progress.transaction = begin(here.group, "deploy", before, here.digest, hosts=progress.hosts, found=found)
    return run


def having(former: str | None, group: str, seen: Mapping[str, Observation]) -> tuple[str, ...]:
    """Return the hosts that have something of a former group; its own name is no other group."""
    if former in (None, group):
        return ()
    return tuple(name for name, answer in seen.items() if former in answer["groups"] or former in answer["changes"])


def _absent(plan: Plan, names: list[str], why: str) -> str:
    return str(
        Refusal(
            f"{', '.join(names)}: {why}",
            needed=f"all {len(plan.hosts)} hosts of group {plan.group}: a group with a missing rank cannot run",
            fix="bring the host back, or take it out of the inventory; nothing was touched",
        )
    )


def _probe(state: State, plan: Plan, settings: Settings, unreached: Mapping[str, str]) -> preflight.Probed:
    texts = bool(state.config.DIFF)
    requests = {name: request(plan, plan.hosts[name], settings.root, texts=texts) for name in plan.hosts}
    return preflight.probe(state, plan, settings, requests, unreached)


def request(plan: Plan, host: HostPlan, root: str, *, texts: bool = False) -> dict[str, Any]:
    """Return what the probe of one host asks for.

    Args:
        plan, host: what is planned.
        root: the hosts' directory for engines and tools.
        texts: whether files that differ come back whole, for `--diff`.
    """
    is_head = host.node_rank == 0
    return {
        "group": plan.group,
        "files": {path: file.sha256 for path, file in host.files.items()},
        "secrets": [secret.path for secret in plan.secrets],
        "units": list(host.units),
        "release": {"path": plan.release.path, "spec": plan.release.id},
        "uv": uv_binary.path_on_hosts(root),
        "argvs": [list(argv) for argv in asked(host)],
        "texts": texts,
        "ready": _ready_url(plan) if is_head else None,
    }


def _ready_url(plan: Plan) -> str | None:
    urls = [check.target for check in plan.steps[-1].checks if check.kind == "http"] if plan.steps else []
    return str(urls[-1]) if urls else None
