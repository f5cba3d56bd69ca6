"""Groups of an inventory that name their recipe: each is a group of muster's own, with hosts and settings of its own.

pyinfra merges the data of all groups that a host is in. Here a group's hosts get the data of that group and of groups
that name no recipe, so that two groups may share a host and each is what it would be alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from muster.errors import Refusal, literal, shown, unknown

if TYPE_CHECKING:
    from pyinfra.api.inventory import Inventory

LEAVING = "leaving"
"""Group of an inventory that names the hosts which leave it: `leaving = ["gpu-7"]`. They belong to no plan any more."""
MONITOR = "monitor"
"""Group of an inventory that names where Prometheus runs. Those without `gpus` are no hosts of a serving group."""
EDGE = "edge"
"""Group of an inventory that names where clients arrive. Those without `gpus` are no hosts of a serving group."""

BY_NAME = "--group {0} (to pyinfra's own command: --data group={0})"
"""How a command is told which group is meant."""

_listed: WeakKeyDictionary[Inventory, Mapping[str, Sequence[str]]] = WeakKeyDictionary()
"""Group -> names of its hosts as the inventory's file lists them; pyinfra keeps the order of the whole inventory."""


def keep_order(inventory: Inventory, groups: Mapping[str, Sequence[str]]) -> None:
    """Keep in which order a file lists the hosts of each group: the first one is the head."""
    _listed[inventory] = groups


def knows_order(inventory: Inventory) -> bool:
    """Whether `keep_order` was told of an inventory."""
    return inventory in _listed


def listed(groups: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return group -> host names, in order, of what an inventory's file holds: lists, or tuples of a list and data."""
    hosts = {name: group[0] if isinstance(group, tuple) else group for name, group in groups.items()}
    return {name: [each[0] if isinstance(each, tuple) else each for each in group] for name, group in hosts.items()}


def recipes(inventory: Inventory) -> dict[str, str]:
    """Return inventory group -> recipe of the groups that name one, in the order of the file; mostly none does."""
    given = inventory.get_override_data().get("recipe")
    return {
        name: str(given or data["recipe"])
        for name, data in inventory.group_data.items()
        if data.get("recipe") and inventory.groups.get(name) and name not in (LEAVING, MONITOR, EDGE)
    }


def chosen(inventory: Inventory, recipe: str | None, *, name: str) -> str:
    """Return the group that a command is about, by its name (`group`, where `--data` gives it) or by its recipe.

    Args:
        inventory: as pyinfra loaded it.
        recipe: as the user named it, if at all.
        name: of the inventory, for messages.

    Returns:
        A group of the inventory; empty where none names a recipe, and the whole inventory is one group.

    Raises:
        Refusal: several groups, and neither says which, or no group is called so.
    """
    named = recipes(inventory)
    if len(named) <= 1:
        return next(iter(named), "")
    wanted = inventory.get_override_data().get("group")
    names = {group: name_of(inventory, group) for group in named}
    if wanted is not None:
        fits = [group for group in named if wanted in (group, names[group])]
        if not fits:
            raise unknown("group", str(wanted), names.values(), where=name)
        return fits[0]
    fits = [group for group in named if recipe is not None and _plain(named[group]) == _plain(recipe)]
    if len(fits) == 1:
        return fits[0]
    there = ", ".join(f"{names[group]} ({named[group]})" for group in fits or named)
    raise Refusal(
        f"{name} has {'several groups of that recipe' if fits else 'several groups'}: {there}"
        + ("" if fits or recipe is None else f"; none serves {shown(recipe)}"),
        needed="one group to act on",
        fix=f"name it: {BY_NAME.format(names[next(iter(fits or named))])}",
    )


def name_of(inventory: Inventory, group: str) -> str:
    """Return the name that a group of an inventory has as a group of muster's."""
    own = next(iter(data_of(inventory, group).values()), {})
    return str(own.get("group") or _plain(recipes(inventory)[group]))


def data_of(inventory: Inventory, group: str) -> dict[str, dict[str, Any]]:
    """Return host -> data of a group's hosts, the head first, as pyinfra would merge them without the other groups.

    Raises:
        Refusal: the group named after the inventory's file beats the group's own data.
    """
    others = {*recipes(inventory)} - {group}
    override = dict(inventory.get_override_data())
    if others:
        override.pop("group", None)  # it has said which group is meant
    there = {host.name: host for host in inventory.groups[group]}
    order = [name for name in _listed.get(inventory, {}).get(group, ()) if name in there]
    return {
        name: {
            **inventory.get_data(),
            **inventory.get_groups_data([each for each in there[name].groups if each not in others]),
            **inventory.get_host_data(name),
            **override,
        }
        for name in dict.fromkeys([*order, *there])
    }


def with_hosts(inventory: Inventory, of: str = "", hosts: Collection[str] = ()) -> set[str]:
    """Return the groups that have hosts; or those that the hosts of one get their data from."""
    others = {*recipes(inventory)} - {of} if of else set()
    return {
        name
        for name, members in inventory.groups.items()
        if name not in others and any(not of or host.name in hosts for host in members)
    }


def require_own_data(inventory: Inventory, path: Path) -> None:
    """Refuse data of the group named after the inventory's file that pyinfra puts above a group's own.

    Args:
        inventory: as pyinfra loaded it.
        path: its file.

    Raises:
        Refusal: naming the setting, and both values.
    """
    whole = inventory.group_data.get(path.stem, {})
    for group in recipes(inventory):
        own = inventory.group_data[group]
        beaten = [key for key in own if group != path.stem and key in whole and whole[key] != own[key]]
        if beaten:
            key = beaten[0]
            raise Refusal(
                f"'{shown(key)}' is {literal(own[key])} for {group} and {literal(whole[key])} for all of {path.name}:"
                f" pyinfra takes the second, of group_data/{path.stem}.py",
                needed=f"a setting of its own for {group}",
                fix=f"move it from group_data/{path.stem}.py to all.py, which every group's own data beat",
            )


def _plain(recipe: str) -> str:
    return Path(recipe).name.removesuffix(".yaml").removesuffix(".yml").replace("_", "-")
