"""From a pyinfra inventory to hosts and settings: reads the data that pyinfra merged, connects to nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.errors import Refusal, literal, shown
from muster.spec import safe_text
from muster.spec.host import HostSpec
from muster.spec.settings import Settings, from_data, same_on_all

if TYPE_CHECKING:
    from pyinfra.api.inventory import Inventory


@dataclass(frozen=True)
class Fleet:
    """An inventory: its hosts in order, and the settings they share."""

    name: str
    hosts: tuple[HostSpec, ...]
    settings: Settings


def from_path(path: str, overrides: Mapping[str, Any] | None = None) -> Fleet:
    """Read an inventory file with its group data, as the pyinfra command does, with no host in reach.

    Args:
        path: inventory file.
        overrides: settings that beat the rest (`--data`).

    Raises:
        Refusal: no such file, a file Python cannot run, or anything `from_pyinfra` refuses.
    """
    return from_pyinfra(load(path, overrides), name=path)


def load(path: str, overrides: Mapping[str, Any] | None = None) -> Inventory:
    """Load a pyinfra inventory from a file, with group data looked for where the pyinfra command looks.

    Raises:
        Refusal: no such file, or a file Python cannot run.
    """
    from pyinfra.api.state import State
    from pyinfra.context import ctx_state
    from pyinfra_cli.inventory import make_inventory

    if not Path(path).is_file():
        raise Refusal(f"no inventory file {path}", fix="name one of inventories/*.py, or write your own")
    try:
        with ctx_state.use(State()):  # inventory and group data files are executed within a state
            check_file(path)
            inventory: Inventory = make_inventory(path, override_data=dict(overrides or {}), cwd=str(Path.cwd()))
    except Refusal:
        raise
    except Exception as error:
        if isinstance(error.__cause__, Refusal):  # an inventory file wraps its own for pyinfra
            raise error.__cause__ from error
        raise Refusal(f"{path} cannot be read: {error}", fix="correct the inventory file") from error
    return inventory


def check_file(path: str) -> None:
    """Refuse an inventory file that names a host twice in one group; pyinfra would quietly merge the two.

    Args:
        path: inventory file; executed within pyinfra's current state.

    Raises:
        Refusal: naming the host.
    """
    from pyinfra_cli.inventory import _get_groups_from_filename

    for group in _get_groups_from_filename(path).values():
        hosts = group[0] if isinstance(group, tuple) else group
        names = Counter(host[0] if isinstance(host, tuple) else host for host in hosts)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise Refusal(
                f"{path}: host {shown(twice[0])} is listed more than once",
                needed="each host once",
                fix="remove the duplicate line from the inventory",
            )


def from_pyinfra(inventory: Inventory, *, name: str) -> Fleet:
    """Turn pyinfra's inventory into hosts and settings.

    Args:
        inventory: as pyinfra loaded it.
        name: file name, for messages.

    Raises:
        Refusal: a host without `gpu`, `gpus` or an address, an unknown or uneven setting.
    """
    data: dict[str, dict[str, Any]] = {host.name: host.data.dict() for host in inventory}
    settings = from_data(same_on_all(data, where=name), where=name)
    return Fleet(name, tuple(_host(key, value, name) for key, value in data.items()), settings)


def _host(name: str, data: Mapping[str, Any], where: str) -> HostSpec:
    for key, what in (("gpu", "the GPU product, such as H800"), ("gpus", "the number of GPUs")):
        if key not in data:
            raise Refusal(f"{where}: {name} has no '{key}'", needed=what, fix=f"give '{key}' in the inventory")
    given = data.get("fabric_address") or data.get("ssh_hostname") or name
    try:
        address = safe_text.address(str(given))
    except ValueError:
        raise Refusal(
            f"{where}: {name} has no address of its own: '{shown(str(given))}' is a name",
            needed="the IP address that the other hosts reach it at",
            fix="give 'fabric_address' in the inventory",
        ) from None
    if not isinstance(data["gpus"], int) or isinstance(data["gpus"], bool) or not 0 < data["gpus"] <= 64:
        raise Refusal(f"{where}: {name}: gpus is {literal(data['gpus'])}", needed="a number of GPUs, 1 to 64")
    interface = data.get("fabric_interface")
    for key, value, check in (("its name", name, safe_text.line), ("fabric_interface", interface, safe_text.interface)):
        try:
            if value is not None:
                check(str(value))
        except ValueError as error:
            raise Refusal(f"{where}: {shown(name)}: {key} is {literal(value)}", needed=str(error)) from None
    return HostSpec(name, address, interface, str(data["gpu"]), data["gpus"])
