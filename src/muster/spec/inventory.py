"""From a pyinfra inventory to hosts and settings: reads the data that pyinfra merged, connects to nothing."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from muster import resources
from muster.errors import Refusal, literal, shown
from muster.spec import inventory_groups, safe_text, settings_files
from muster.spec.host import HostSpec
from muster.spec.inventory_groups import EDGE, LEAVING, MONITOR
from muster.spec.settings import Settings, from_data, own_env, same_on_all
from muster.spec.settings_files import SettingsFiles

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


_ASKS_NOTHING = ("yes", "dry", "json_output", "debug_facts", "debug_operations")
"""Options with which pyinfra's command does not ask before it executes, or does not come to that."""

_files: WeakKeyDictionary[Inventory, SettingsFiles] = WeakKeyDictionary()
"""The files behind the inventories that were loaded here."""


def from_path(path: str, overrides: Mapping[str, Any] | None = None, recipe: str | None = None) -> Fleet:
    """Read an inventory file with its group data, as the pyinfra command does, with no host in reach.

    Args:
        path: inventory file.
        overrides: settings that beat the rest (`--data`).
        recipe: of the group that is meant, where the inventory has several.

    Raises:
        Refusal: no such file, a file Python cannot run, or anything `from_pyinfra` refuses.
    """
    return from_pyinfra(load(path, overrides), name=path, recipe=recipe)


def load(path: str, overrides: Mapping[str, Any] | None = None) -> Inventory:
    """Load a pyinfra inventory from a file, with the group_data of the working directory, above and beside the file.

    Raises:
        Refusal: no such file, a file Python cannot run, or a group_data file whose name nearly names a group.
    """
    from pyinfra.api.state import State
    from pyinfra.context import ctx_state
    from pyinfra_cli.inventory import make_inventory

    if not Path(path).is_file():
        examples = resources.directory("inventories")
        raise Refusal(f"no inventory file {path}", fix=f"copy one of {examples}/*.py, and put in your own hosts")
    files = settings_files.files_of(Path(path), Path.cwd())
    try:
        with ctx_state.use(State()):  # inventory and group data files are executed within a state
            hosts = check_file(path)
            directories = [str(directory) for directory in files.group_data]
            inventory: Inventory = make_inventory(
                path, override_data=dict(overrides or {}), group_data_directories=directories
            )
    except Refusal:
        raise
    except Exception as error:
        if isinstance(error.__cause__, Refusal):  # an inventory file wraps its own for pyinfra
            raise error.__cause__ from error
        raise Refusal(f"{path} cannot be read: {error}", fix="correct the inventory file") from error
    settings_files.require_named_groups(files, _groups(inventory))
    _files[inventory] = files
    inventory_groups.keep_order(inventory, hosts)
    inventory_groups.require_own_data(inventory, files.inventory)
    return inventory


def files_of(inventory: Inventory) -> SettingsFiles | None:
    """Return the files behind an inventory: as it was loaded here, or as pyinfra's own command line names them."""
    if inventory not in _files:
        found = _of_command_line()
        if found is None:
            return None
        _files[inventory] = found.files
    return _files[inventory]


def path_of(inventory: Inventory) -> Path | None:
    """Return the file of an inventory; None where there is none behind it."""
    files = files_of(inventory)
    return files.inventory if files is not None else None


def of_run(inventory: Inventory) -> Fleet:
    """Return hosts and settings of the inventory of a run over its hosts.

    Raises:
        Refusal: as `from_pyinfra`, and as `require_whole`.
    """
    require_whole(inventory)
    return from_pyinfra(inventory, name="inventory")


def require_whole(inventory: Inventory) -> None:
    """Refuse a run over hosts that would not know all settings, or not which hosts are the group's.

    Raises:
        Refusal: as `require_all_read`, and several groups in the inventory: hosts of the others would pass for members.
    """
    require_all_read(inventory)
    inventory_groups.require_one(inventory, path_of(inventory))


def require_all_read(inventory: Inventory) -> None:
    """Refuse a run of pyinfra's own command that has missed group_data or config.py of its inventory.

    Raises:
        Refusal: naming what was missed, and where to run from.
    """
    found = _of_command_line()
    if found is not None:
        _files[inventory] = found.files
        settings_files.require_read(found.files, found.group_data, found.config)
        settings_files.require_named_groups(found.files, _groups(inventory))
        if not inventory_groups.knows_order(inventory):
            inventory_groups.keep_order(inventory, check_file(str(found.files.inventory)))
        inventory_groups.require_own_data(inventory, found.files.inventory)
        if found.asks and not sys.stdin.isatty():
            raise Refusal(
                "pyinfra asks before it changes anything, and there is no terminal to ask at",
                needed="a yes beforehand",
                fix="run it again with -y; --dry says what would change",
            )


@dataclass(frozen=True)
class _CommandLine:
    """What pyinfra's own command was given.

    Args:
        files: of the inventory.
        group_data: directories that it has read.
        config: the config.py that it has read, or None.
        asks: whether it will ask before it executes.
    """

    files: SettingsFiles
    group_data: list[Path]
    config: Path | None
    asks: bool


def _of_command_line() -> _CommandLine | None:
    """Return the files of the inventory that pyinfra's command was given, and which of them it has read.

    pyinfra keeps neither: its own parser reads the command line once more. None where another program runs, or the
    inventory is no file.
    """
    program = Path(sys.argv[0])
    if program.stem != "pyinfra" and program.parent.name not in ("pyinfra", "pyinfra_cli"):
        return None
    from pyinfra_cli.cli import cli

    given = cli.make_context("pyinfra", sys.argv[1:], resilient_parsing=True).params
    here = Path.cwd()  # --chdir has been carried out
    path = here / str(given["inventory"])
    if not path.is_file():
        return None
    files = settings_files.files_of(path, here)
    named = str(given["config_filename"])
    config = here / named
    # Whoever names a configuration wants that one.
    read_config = files.config if named != settings_files.CONFIG else (config if config.is_file() else None)
    group_data = [here / "group_data", path.parent / "group_data", *(here / name for name in given["group_data"] or ())]
    asks = not any(given[name] for name in _ASKS_NOTHING)
    return _CommandLine(files, group_data, read_config, asks)


def _groups(inventory: Inventory, of: str = "", hosts: Collection[str] = ()) -> set[str]:
    """Return the groups that have hosts; or those that the hosts of one get their data from."""
    others = {*inventory_groups.recipes(inventory)} - {of} if of else set()
    return {
        name
        for name, members in inventory.groups.items()
        if name not in others and any(not of or host.name in hosts for host in members)
    }


def check_file(path: str) -> dict[str, list[str]]:
    """Return group -> hosts of an inventory file that names no host twice in a group; pyinfra would merge the two.

    Args:
        path: inventory file; executed within pyinfra's current state.

    Raises:
        Refusal: naming the host.
    """
    from pyinfra_cli.inventory import _get_groups_from_filename

    groups = inventory_groups.listed(_get_groups_from_filename(path))
    for hosts in groups.values():
        twice = [name for name, count in Counter(hosts).items() if count > 1]
        if twice:
            raise Refusal(
                f"{path}: host {shown(twice[0])} is listed more than once",
                needed="each host once",
                fix="remove the duplicate line from the inventory",
            )
    return groups


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
    settings = from_data(shared, where=name)
    for host, env in own.items():  # held to the same rules as the rest of extra_env
        from_data({**shared, "extra_env": {**settings.extra_env, **env}}, where=f"{name}: {host}")
    hosts = tuple(replace(_host(key, value, name), env=tuple(own.get(key, {}).items())) for key, value in data.items())
    require_reachable(hosts, name)
    files = files_of(inventory)
    return Fleet(
        name,
        hosts,
        settings,
        homes=files.homes if files else (),
        files=files.read_for(_groups(inventory, group, data)) if files else (),
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
    """Return the group of a recipe alone, or, without one, each that names its own; arguments as of `from_pyinfra`."""
    if recipe is None:
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


def leaving_hosts(inventory: Inventory) -> tuple[str, ...]:
    """Return the hosts that an inventory names as leaving."""
    return tuple(host.name for host in inventory.groups.get(LEAVING, ()))


def monitor_hosts(inventory: Inventory) -> dict[str, str]:
    """Return name -> IP address of the hosts on which Prometheus runs: the address that it scrapes from.

    Raises:
        Refusal: one without an address.
    """
    return _addresses(inventory, MONITOR)


def edge_hosts(inventory: Inventory) -> dict[str, str]:
    """Return name -> IP address of the hosts at which clients arrive: the address from which they reach the group.

    Raises:
        Refusal: one without an address.
    """
    return _addresses(inventory, EDGE)


def _addresses(inventory: Inventory, group: str) -> dict[str, str]:
    hosts = inventory.groups.get(group, ())
    return {host.name: _address(host.name, host.data.dict(), "inventory") for host in hosts}


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


def _host(name: str, data: Mapping[str, Any], where: str) -> HostSpec:
    for key, what in (("gpu", "the GPU product, such as H800"), ("gpus", "the number of GPUs")):
        if key not in data:
            raise Refusal(f"{where}: {name} has no '{key}'", needed=what, fix=f"give '{key}' in the inventory")
    address = _address(name, data, where)
    if not isinstance(data["gpus"], int) or isinstance(data["gpus"], bool) or not 0 < data["gpus"] <= 64:
        raise Refusal(f"{where}: {name}: gpus is {literal(data['gpus'])}", needed="a number of GPUs, 1 to 64")
    interface = data.get("fabric_interface")
    for key, value, check in (("its name", name, safe_text.line), ("fabric_interface", interface, safe_text.interface)):
        try:
            if value is not None:
                check(str(value))
        except ValueError as error:
            raise Refusal(f"{where}: {shown(name)}: {key} is {literal(value)}", needed=str(error)) from None
    return HostSpec(name, address, interface, str(data["gpu"]), data["gpus"], _devices(name, data, where))


def _address(name: str, data: Mapping[str, Any], where: str) -> str:
    given = data.get("fabric_address") or data.get("ssh_hostname") or name
    try:
        return safe_text.address(str(given))
    except ValueError as error:
        raise Refusal(
            f"{where}: {name} has no address of its own: '{shown(str(given))}' is not {error}",
            needed="the IP address that the other hosts reach it at",
            fix="give 'fabric_address' in the inventory",
        ) from None


def _devices(name: str, data: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return which GPUs of the host the group uses, by index or UUID; empty for the first ones."""
    given = data.get("gpu_devices") or ()
    devices = tuple(str(each) for each in given) if isinstance(given, (list, tuple)) else ()
    bad = [each for each in devices if not re.fullmatch(r"\d{1,3}|GPU-[0-9a-fA-F-]{8,40}", each)]
    if bad or (given and len(set(devices)) != data["gpus"]):
        raise Refusal(
            f"{where}: {name}: gpu_devices is {literal(given)}, gpus is {data['gpus']}",
            needed="a list of as many different GPUs as `gpus`, by index or UUID (nvidia-smi -L)",
        )
    return devices
