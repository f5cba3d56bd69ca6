"""The file behind an inventory, loaded here or by pyinfra's own command: what was read with it, and what was missed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from muster import resources
from muster.errors import Refusal, shown
from muster.spec import inventory_groups, settings_files
from muster.spec.settings_files import SettingsFiles

if TYPE_CHECKING:
    from pyinfra.api.inventory import Inventory

_ASKS_NOTHING = ("yes", "dry", "json_output", "debug_facts", "debug_operations")
"""Options with which pyinfra's command does not ask before it executes, or does not come to that."""

_files: WeakKeyDictionary[Inventory, SettingsFiles] = WeakKeyDictionary()
"""The files behind the inventories that were loaded here."""


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
    settings_files.require_named_groups(files, inventory_groups.with_hosts(inventory))
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


def require_all_read(inventory: Inventory) -> None:
    """Refuse a run of pyinfra's own command that has missed group_data or config.py of its inventory.

    Raises:
        Refusal: naming what was missed, and where to run from.
    """
    found = _of_command_line()
    if found is not None:
        _files[inventory] = found.files
        settings_files.require_read(found.files, found.group_data, found.config)
        settings_files.require_named_groups(found.files, inventory_groups.with_hosts(inventory))
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
