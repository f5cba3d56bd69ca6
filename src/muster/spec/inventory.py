"""From a pyinfra inventory to hosts and settings: reads the data that pyinfra merged, connects to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.errors import Refusal
from muster.spec import inventory_groups, inventory_source
from muster.spec.host import HostSpec, address_in, host_of
from muster.spec.host_data import own_env, same_on_all, settings_of
from muster.spec.inventory_groups import EDGE, LEAVING, MONITOR
from muster.spec.settings import Settings

if TYPE_CHECKING:
    from pyinfra.api.inventory import Inventory


@dataclass(frozen=True)
class Fleet:
    """An inventory, or one of its groups that name their recipe: hosts in order, and the settings they share.

    Args:
        name: of the inventory, for messages; with its group where it has several.
        hosts: in inventory order.
        settings: of all of them.
        homes: directories that may hold pins, weakest first; empty where no file is behind the inventory.
        files: group_data files that the settings come from, weakest first.
        group: of the inventory; empty where its groups name no recipe, and all of it is one group.
    """

    name: str
    hosts: tuple[HostSpec, ...]
    settings: Settings
    homes: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Scope:
    """What a run over hosts may touch: an inventory, or one group of an inventory that has several.

    Args:
        group: of the inventory; empty where that is one group.
        name: of that group; empty where what is on the hosts says it.
        members: names of the hosts that the run may touch.
        hosts: those of them that belong to a plan: none that leave, and no monitor or edge without GPUs.
    """

    group: str
    name: str
    members: frozenset[str]
    hosts: frozenset[str]


def from_path(path: str, overrides: Mapping[str, Any] | None = None, recipe: str | None = None) -> Fleet:
    """Read an inventory file with its group data, as the pyinfra command does, with no host in reach.

    Args:
        path: inventory file.
        overrides: settings that beat the rest (`--data`).
        recipe: of the group that is meant, where the inventory has several.

    Raises:
        Refusal: no such file, a file Python cannot run, or anything `from_pyinfra` refuses.
    """
    return from_pyinfra(inventory_source.load(path, overrides), name=path, recipe=recipe)


def of_run(inventory: Inventory, group: str = "") -> Fleet:
    """Return hosts and settings of the inventory of a run over its hosts.

    Args:
        inventory: as pyinfra loaded it.
        group: of the inventory that is meant, where it has several.

    Raises:
        Refusal: as `from_pyinfra` and `require_all_read`.
    """
    inventory_source.require_all_read(inventory)
    return from_pyinfra(inventory, name="inventory", group=group)


def scope_of(inventory: Inventory, recipe: str | None = None) -> Scope:
    """Return what a run over the hosts of an inventory may touch: hosts of other groups would pass for members.

    Args:
        inventory: as pyinfra loaded it.
        recipe: of the group that is meant, as the user named it, if at all.

    Raises:
        Refusal: as `require_all_read`; several groups, and neither recipe nor `group` by `--data` says which.
    """
    inventory_source.require_all_read(inventory)
    outside = outside_hosts(inventory)
    several = len(inventory_groups.recipes(inventory)) > 1
    where = str(inventory_source.path_of(inventory) or "the inventory")
    group = inventory_groups.chosen(inventory, recipe, name=where) if several else ""
    members = frozenset(host.name for host in (inventory.groups[group] if group else inventory))
    name = inventory_groups.name_of(inventory, group) if group else ""
    return Scope(group, name, members, members - {*outside})


def from_pyinfra(inventory: Inventory, *, name: str, recipe: str | None = None, group: str = "") -> Fleet:
    """Turn pyinfra's inventory, or one group of it, into hosts and settings.

    Args:
        inventory: as pyinfra loaded it.
        name: file name, for messages.
        recipe: of the group that is meant, as the user named it, if at all.
        group: of the inventory that is meant; where it is empty, recipe and settings say which.

    Raises:
        Refusal: a host without `gpu`, `gpus` or an address, an unknown or uneven setting; several groups, and nothing
            says which one is meant.
    """
    leaving, others = leaving_hosts(inventory), outside_hosts(inventory)
    group = group or inventory_groups.chosen(inventory, recipe, name=name)
    if group:
        given = inventory_groups.data_of(inventory, group)
        name = f"{name}: {group}" if len(inventory_groups.recipes(inventory)) > 1 else name
    else:
        given = {host.name: host.data.dict() for host in inventory}
    data: dict[str, Mapping[str, Any]] = {host: each for host, each in given.items() if host not in others}
    if leaving and not data:
        raise Refusal(f"{name}: every host is leaving", needed="one that stays", fix="remove the group: muster remove")
    common, own = own_env(data)
    shared = same_on_all(common, where=name)
    settings = settings_of(shared, where=name)
    for host, env in own.items():  # held to the same rules as the rest of extra_env
        settings_of({**shared, "extra_env": {**settings.extra_env, **env}}, where=f"{name}: {host}")
    hosts = tuple(
        replace(host_of(key, value, name), env=tuple(own.get(key, {}).items())) for key, value in data.items()
    )
    require_reachable(hosts, name)
    files = inventory_source.files_of(inventory)
    return Fleet(
        name,
        hosts,
        settings,
        homes=files.homes if files else (),
        files=files.read_for(inventory_groups.with_hosts(inventory, group, data)) if files else (),
        group=group,
    )


def groups_of(inventory: Inventory, *, name: str) -> dict[str, Fleet]:
    """Return each group of an inventory that names its recipe, in the order of the file.

    Args:
        inventory: as pyinfra loaded it.
        name: file name, for messages.

    Raises:
        Refusal: as `from_pyinfra`; no group names its recipe.
    """
    named = inventory_groups.recipes(inventory)
    if not named:
        raise Refusal(
            f"{name}: no group names its recipe",
            needed="a RECIPE on the command line, or one in the data of each group",
            fix='recipe = "kimi-k2-instruct" in group_data/<group>.py (docs/fleet.md)',
        )
    return {group: from_pyinfra(inventory, name=name, group=group) for group in named}


def groups_for(inventory: Inventory, recipe: str | None, *, name: str) -> dict[str, Fleet]:
    """Return the group that a recipe, or `group` by `--data`, means; without either each that names its own recipe.

    Arguments and errors are those of `from_pyinfra`.
    """
    if recipe is None and "group" not in inventory.get_override_data():
        return groups_of(inventory, name=name)
    fleet = from_pyinfra(inventory, name=name, recipe=recipe)
    return {fleet.group or name: fleet}


def recipe_of(recipe: str | None, fleet: Fleet) -> str:
    """Return the recipe that a command names, or else the group.

    Raises:
        Refusal: neither does.
    """
    if recipe or fleet.settings.recipe:
        return str(recipe or fleet.settings.recipe)
    raise Refusal(
        f"{fleet.name}: no recipe",
        needed="a RECIPE on the command line, or one in the group's data",
        fix='name one, or write recipe = "NAME" in its group_data (docs/fleet.md)',
    )


def leaving_hosts(inventory: Inventory, group: str = "") -> tuple[str, ...]:
    """Return the hosts that an inventory names as leaving; those of one of its groups where that is named."""
    names = tuple(host.name for host in inventory.groups.get(LEAVING, ()))
    own = {host.name for host in inventory.groups.get(group, ())} if group else {*names}
    return tuple(name for name in names if name in own)


def monitor_hosts(inventory: Inventory) -> dict[str, str]:
    """Return name -> IP address of the hosts on which Prometheus runs: the address that it scrapes from.

    Raises:
        Refusal: one without an address.
    """
    return _addresses(inventory, MONITOR)


def edges_if_any(inventory: Inventory) -> dict[str, str]:
    """Return name -> IP address of the hosts at which clients arrive: the address from which they reach the group.

    Raises:
        Refusal: one without an address.
    """
    return _addresses(inventory, EDGE)


def edge_hosts(inventory: Inventory) -> dict[str, str]:
    """Return the same where there has to be an edge.

    Raises:
        Refusal: there is none, or one without an address.
    """
    edges = edges_if_any(inventory)
    if not edges:
        raise Refusal(
            "the inventory has no group `edge`",
            needed="a host at which clients arrive",
            fix='edge = [("edge-0", {"ssh_hostname": ...})] in the inventory (docs/edge.md); or muster edge --out',
        )
    return edges


def _addresses(inventory: Inventory, group: str) -> dict[str, str]:
    hosts = inventory.groups.get(group, ())
    return {host.name: address_in(host.name, host.data.dict(), "inventory") for host in hosts}


def outside_hosts(inventory: Inventory) -> tuple[str, ...]:
    """Return the hosts that belong to no plan: those that leave, and monitors and edges without GPUs."""
    beside = (*inventory.groups.get(MONITOR, ()), *inventory.groups.get(EDGE, ()))
    without = (host.name for host in beside if "gpus" not in host.data.dict())
    return tuple(dict.fromkeys((*leaving_hosts(inventory), *without)))


def require_reachable(hosts: Sequence[HostSpec], where: str) -> None:
    """Refuse loopback addresses of a group of several hosts: each would reach itself alone."""
    for host in hosts:
        if ip_address(host.address).is_loopback and len(hosts) > 1:
            raise Refusal(
                f"{where}: {host.name}: fabric address {host.address} is none that other hosts can reach",
                needed="the IP address of its fabric interface",
                fix="set fabric_address in the inventory (ip -br addr shows what the host has)",
            )
