"""Asks every guard of a group over SSH at once; a host that cannot be reached is an answer too."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from gevent.pool import Pool
from pyinfra.api.host import Host

from muster.edge.groups_behind import seen_by_edge
from muster.hosts.all_hosts import each, hosts_of
from muster.hosts.connect import Connected, connect, connected
from muster.hosts.run_programs import run_program
from muster.plan import cuda_variants
from muster.plan.fleet import plan_fleet
from muster.plan.prepare import plan_for
from muster.plan.types import Plan
from muster.spec import inventory, inventory_source
from muster.spec.inventory import Fleet
from muster.status.ask_edges import Edges

Answer = TypeVar("Answer")

SECONDS = 30
"""For one question; `ctl` itself gives up after 10."""
_GROUPS_AT_ONCE = 16


class Guards:
    """The guards of one group, connected."""

    def __init__(self, plan: Plan, there: Connected, digests: Collection[str] = ()) -> None:
        """`digests`: that the same arguments plan with other CUDA variants, where the drivers decide."""
        self.plan, self.digests = plan, digests
        self._state, self._unreached = there.state, there.unreached
        self._silent: dict[str, dict[str, Any]] = {}
        self._tried = float("-inf")
        self._asked = False
        self._seconds, self._pause = float(SECONDS), 0.0

    def be_brief(self, seconds: float, pause: float) -> None:
        """Wait no longer than `seconds` for an answer, and ask a host that gave none again after `pause` seconds.

        For those who ask all the time: a host that is off would hold up each of their looks at the others.
        """
        self._seconds, self._pause = seconds, pause

    def ask(self, command: str, **more: Any) -> dict[str, dict[str, Any]]:
        """Ask every reachable host's guard.

        Args:
            command: `status` or `logs`.
            more: as `muster.on_host.ask_guard` takes.

        Returns:
            Host -> answer, in the plan's order; {error: text} for a host that gave none.
        """
        # What was measured of a disk is kept beside the weights that are staged.
        model = {"model": self.plan.model} if command == "status" and self.plan.model.startswith("/") else {}
        request = {"group": self.plan.group, "command": command, **model, **more}
        return self._run("ask_guard", dict.fromkeys(self.plan.hosts, request))

    def journals(self, requests: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Read the journals of the group's units on some hosts.

        Args:
            requests: host -> what `muster.on_host.read_journal` takes besides `units`.

        Returns:
            Host -> answer, in the plan's order; {error: text} for a host that gave none.
        """
        with_units = {name: {**request, "units": self.plan.hosts[name].all_units} for name, request in requests.items()}
        return self._run("read_journal", with_units)

    def kept_plans(self, do: str, **more: Any) -> dict[str, dict[str, Any]]:
        """Ask every reachable host for the verified plans that it keeps.

        Args:
            do: `list` or `read`.
            more: as `muster.on_host.kept_plans` takes.

        Returns:
            Host -> answer, in the plan's order; {error: text} for a host that gave none.
        """
        request = {"do": do, "group": self.plan.group, **more}
        return self._run("kept_plans", dict.fromkeys(self.plan.hosts, request))

    def _run(self, program: str, requests: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        hosts = hosts_of(self._state)

        def one(host: Host) -> dict[str, Any]:
            return run_program(self._state, host, program, requests[host.name], seconds=self._seconds)

        if time.monotonic() - self._tried >= self._pause:
            self._reconnect()
        names = [name for name in self.plan.hosts if name in requests]
        silent = {name: {"error": why} for name, why in self._unreached.items()} | self._silent
        answers = each([hosts[name] for name in names if name not in silent], one)
        self._silent |= {name: answer for name, answer in answers.items() if "error" in answer}
        return {name: answers.get(name) or silent[name] for name in names}

    def _reconnect(self) -> None:
        """Connect again to hosts that were out of reach, or gave no answer the last time: they may be back."""
        if self._asked:
            for name in self._silent:
                hosts_of(self._state)[name].disconnect()
            again = {*self._unreached, *self._silent}
            self._unreached = connect(self._state, again) if again else {}
        self._silent = {}
        self._asked, self._tried = True, time.monotonic()


@contextmanager
def guards_of(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any]) -> Iterator[Guards]:
    """Connect to every host of a group that can be reached, and disconnect at the end.

    Args:
        inventory_file, recipe_name: as for `muster plan`; without a recipe it is the group's own.
        overrides: settings that beat the rest.

    Raises:
        Refusal: no plan.
    """
    hosts = inventory_source.load(inventory_file, overrides)
    group = inventory.from_pyinfra(hosts, name=inventory_file, recipe=recipe_name)
    recipe = inventory.recipe_of(recipe_name, group)
    plan = plan_for(recipe, group)
    with connected(hosts, names=plan.hosts.keys()) as there:
        yield Guards(plan, there, _digests(plan, recipe, group))


@dataclass(frozen=True)
class FleetGuards:
    """The guards of all groups of an inventory, and the edges before them.

    Args:
        groups: group of the inventory -> its guards.
        edges: none where the inventory has none.
    """

    groups: Mapping[str, Guards]
    edges: Edges


@contextmanager
def guards_of_fleet(inventory_file: str, overrides: Mapping[str, Any]) -> Iterator[FleetGuards]:
    """Connect to every host of every group of an inventory, and disconnect at the end.

    Raises:
        Refusal: no plan, or no group names its recipe.
    """
    hosts = inventory_source.load(inventory_file, overrides)
    groups = inventory.groups_of(hosts, name=inventory_file)
    plans = plan_fleet(groups).plans
    digests = {name: _digests(plan, str(groups[name].settings.recipe), groups[name]) for name, plan in plans.items()}
    with connected(hosts, names={name for plan in plans.values() for name in plan.hosts}) as there:
        own = {
            name: Connected(there.state, {host: why for host, why in there.unreached.items() if host in plan.hosts})
            for name, plan in plans.items()
        }
        before = seen_by_edge(plans, {name: group.settings for name, group in groups.items()})
        yield FleetGuards(
            {name: Guards(plan, own[name], digests[name]) for name, plan in plans.items()},
            Edges(before, there.state, inventory.edges_if_any(hosts)),
        )


def ask_fleet(guards: Mapping[str, Guards], ask: Callable[[Guards], Answer]) -> list[Answer]:
    """Ask the guards of all groups at once; answers in the order of the groups."""
    return list(Pool(_GROUPS_AT_ONCE).map(ask, guards.values()))


def _digests(plan: Plan, recipe_name: str, group: Fleet) -> list[str]:
    """Return the digests of a plan with other CUDA variants, where the drivers decide."""
    others = cuda_variants.offered(plan.vllm_version) if plan.cuda_variant_assumed else ()
    return [plan_for(recipe_name, group, variant.name).digest for variant in others]
