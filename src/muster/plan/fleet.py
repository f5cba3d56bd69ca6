"""Several groups become one plan: each as it would be alone, and no host's GPU or port in two of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import TypeVar

from muster.errors import Refusal
from muster.plan.prepare import plan_for, plan_of
from muster.plan.types import HostPlan, Opening, Plan
from muster.spec import recipe as recipes
from muster.spec.inventory import Fleet, recipe_of
from muster.spec.settings import NAMES

Result = TypeVar("Result")

_MOST = 6
"""Conflicts that are named; the others follow from them mostly."""


@dataclass(frozen=True)
class FleetPlan:
    """The plans of all groups of an inventory.

    Args:
        plans: group of the inventory -> its plan, in the order in which they are deployed.
    """

    plans: Mapping[str, Plan]

    @property
    def shared(self) -> dict[str, list[tuple[str, HostPlan]]]:
        """Host -> what each group has there, of the hosts that are in several groups."""
        return {name: there for name, there in by_host(self.plans).items() if len(there) > 1}

    def rounds(
        self, parallel: int = 1, groups: Collection[str] | None = None, unchanged: Collection[str] = ()
    ) -> list[tuple[str, ...]]:
        """Return which groups are changed together: at most so many, in order, none of which share a host.

        All groups of a model are never changed together where it has several: one of them serves.

        Args:
            parallel: groups at once.
            groups: that are meant; None for all.
            unchanged: of them, those that are as planned: they come first, any number at once.
        """
        meant = [group for group in self.plans if groups is None or group in groups]
        still = self._apart([group for group in meant if group in unchanged], len(meant))
        return still + self._apart([group for group in meant if group not in unchanged], parallel, keep_one=True)

    def _apart(self, groups: Sequence[str], at_once: int, *, keep_one: bool = False) -> list[tuple[str, ...]]:
        rounds: list[tuple[str, ...]] = []
        for group in groups:
            last = rounds[-1] if rounds else ()
            hosts = self.plans[group].hosts.keys()
            apart = all(not hosts & self.plans[other].hosts.keys() for other in last)
            serves = not keep_one or not self._all_of_a_model({*last, group})
            if last and apart and serves and len(last) < at_once:
                rounds[-1] = (*last, group)
            else:
                rounds.append((group,))
        return rounds

    def _of_its_model(self, group: str) -> set[str]:
        model = self.plans[group].served_model_name
        return {other for other, plan in self.plans.items() if plan.served_model_name == model}

    def _all_of_a_model(self, groups: set[str]) -> bool:
        models = [self._of_its_model(group) for group in groups]
        return any(len(model) > 1 and model <= groups for model in models)


def plan_fleet(groups: Mapping[str, Fleet]) -> FleetPlan:
    """Return the plans of groups that name their recipe.

    Args:
        groups: group of the inventory -> its hosts and settings, in the order in which they are deployed.

    Raises:
        Refusal: what `prepare.plan_of` refuses, of all groups, each with its name; as `require_apart`.
    """
    load = cache(recipes.load)
    plans = each_group(groups, lambda group: plan_of(load(str(groups[group].settings.recipe)), groups[group]))
    require_apart(plans)
    return FleetPlan(plans)


def plans_of(groups: Mapping[str, Fleet], recipe: str | None) -> dict[str, Plan]:
    """Return the plans of groups: of the recipe that a command names, or of those that they name themselves.

    Args:
        groups: group of the inventory -> its hosts and settings.
        recipe: of the one group; None where each names its own.

    Raises:
        Refusal: as `plan_fleet`; a group without a recipe.
    """
    if len(groups) == 1:
        ((name, group),) = groups.items()
        return {name: plan_for(recipe_of(recipe, group), group)}
    return dict(plan_fleet(groups).plans)


def each_group(groups: Iterable[str], work: Callable[[str], Result]) -> dict[str, Result]:
    """Return group -> result of some work on it, once none of them refuses.

    Raises:
        Refusal: every group's, with the name of the group.
    """
    results: dict[str, Result] = {}
    refused: dict[str, Refusal] = {}
    for group in groups:
        try:
            results[group] = work(group)
        except Refusal as refusal:
            refused[group] = refusal
    if refused:
        (first, why), *others = refused.items()
        more = "\n".join(f"{group}: {refusal}" for group, refusal in others)
        detail = "\n\n".join(text for text in (why.detail, more) if text)
        raise Refusal(f"{first}: {why.found}", needed=why.needed, fix=why.fix, detail=detail)
    return results


def require_apart(plans: Mapping[str, Plan]) -> None:
    """Refuse groups that are in each other's way.

    Args:
        plans: group of the inventory -> its plan.

    Raises:
        Refusal: two groups of one name, a GPU or port of a host that two groups claim, one machine under two names.
    """
    names: dict[str, str] = {}
    for group, plan in plans.items():
        if plan.group in names:
            raise Refusal(
                f"{names[plan.group]} and {group} are both called {plan.group}",
                needed="a name for each group: units, keys and directories are called after it",
                fix=f'group = "{group.replace("_", "-").lower()}" in group_data/{group}.py',
            )
        names[plan.group] = group
    _require_one_name(plans)
    found = list(_conflicts(plans))
    if found:
        more = f"\nand {len(found) - _MOST} more" if len(found) > _MOST else ""
        fixes = dict.fromkeys(fix for _, fix in found[:_MOST])
        raise Refusal(
            "\n".join(text for text, _ in found[:_MOST]) + more,
            needed="GPUs and ports of its own for each group of a host",
            fix="; ".join(fixes) + ". What the inventory says of a host beats what it says of a group",
        )


def by_host(plans: Mapping[str, Plan]) -> dict[str, list[tuple[str, HostPlan]]]:
    """Return host -> what each group has there."""
    hosts: defaultdict[str, list[tuple[str, HostPlan]]] = defaultdict(list)
    for group, plan in plans.items():
        for name, host in plan.hosts.items():
            hosts[name].append((group, host))
    return hosts


def _require_one_name(plans: Mapping[str, Plan]) -> None:
    """Refuse two hosts with one address: what each group has there would not be held against the other's."""
    owners: dict[str, tuple[str, str]] = {}
    for group, plan in plans.items():
        for name, host in plan.hosts.items():
            other, its_group = owners.setdefault(host.address, (name, group))
            if other != name:
                raise Refusal(
                    f"{other} of {its_group} and {name} of {group} have one address, {host.address}",
                    needed="one name for each machine in all groups",
                    fix=f"correct fabric_address, or write {other} for {name}",
                )


def _conflicts(plans: Mapping[str, Plan]) -> Iterator[tuple[str, str]]:
    """Yield what two groups both claim of a host, and what to set."""
    for name, there in by_host(plans).items():
        taken = [opening for _, host in there for opening in host.firewall.openings]
        for (one, first), (other, second) in combinations(there, 2):
            who = f"{name}: {plans[one].group} and {plans[other].group}"
            yield from _gpus(who, (one, first), (other, second))
            yield from _ports(who, other, first, second, taken)


def _gpus(who: str, one: tuple[str, HostPlan], other: tuple[str, HostPlan]) -> Iterator[tuple[str, str]]:
    mine, theirs = one[1].gpu_names, other[1].gpu_names
    shared = [gpu for gpu in mine if gpu in theirs]
    if shared:
        text = f"{who} both claim GPU{'s' * (len(shared) > 1)} {', '.join(shared)}"
        yield text, _divided(one, other)
    elif mine[0].startswith("GPU-") != theirs[0].startswith("GPU-"):
        text = f"{who} name GPUs differently ({', '.join(mine)}; {', '.join(theirs)}): they may be the same"
        yield text, "name them by UUID (nvidia-smi -L) in gpu_devices of both"


def _divided(one: tuple[str, HostPlan], other: tuple[str, HostPlan]) -> str:
    """Return what to write so that two groups have a host's GPUs: halves where neither says which, else the next."""
    if one[1].devices or other[1].devices:
        kept, moved = (one, other) if one[1].devices else (other, one)
        indices = [int(gpu) for gpu in kept[1].gpu_names if gpu.isdigit()]
        begin = max(indices, default=-1) + 1
        return _said(moved[0], range(begin, begin + moved[1].gpus))
    if one[1].gpus != other[1].gpus or one[1].gpus % 2:
        return _said(other[0], range(one[1].gpus, one[1].gpus + other[1].gpus))
    half = one[1].gpus // 2
    halves = f"{_said(one[0], range(half))}, {_said(other[0], range(half, 2 * half))}"
    return f"if the host has {2 * half}: {halves}; if it has more: {_said(other[0], range(2 * half, 4 * half))}"


def _said(group: str, gpus: range) -> str:
    return f"gpus = {len(gpus)} and gpu_devices = {list(gpus)} in group_data/{group}.py"


def _ports(
    who: str, other: str, first: HostPlan, second: HostPlan, taken: Sequence[Opening]
) -> Iterator[tuple[str, str]]:
    """Yield the listeners that two groups have on one port, and a free one for the second."""
    for mine in first.firewall.openings:
        for theirs in second.firewall.openings:
            if mine.overlaps(theirs.first, theirs.last):
                port = max(mine.first, theirs.first)
                text = f"{who} both listen on port {port} ({mine.name}, {theirs.name})"
                if theirs.name in NAMES:
                    yield text, f"{theirs.name} = {_free(theirs.first, taken)} in group_data/{other}.py"
                else:
                    yield text, "only one group of a host can run on Ray: give the other one executor mp, or a host"


def _free(port: int, taken: Sequence[Opening]) -> int:
    return next(each for each in range(port, 1 << 16) if not any(one.overlaps(each, each) for one in taken))
