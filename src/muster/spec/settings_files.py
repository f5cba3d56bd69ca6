"""The files beside and above an inventory that its settings come from, and which of them a run has missed.

pyinfra's own command looks for group_data in the working directory and beside the inventory, and for config.py in the
working directory alone. A run from another directory would plan with defaults and say nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from muster.errors import Refusal

GROUP_DATA, CONFIG = "group_data", "config.py"


@dataclass(frozen=True)
class SettingsFiles:
    """Where an inventory's settings come from.

    Args:
        inventory: its file.
        homes: directories that may hold group_data, config.py and pins: the working directory, one above the
            inventory's, and the inventory's own, which takes precedence.
        group_data: those of their group_data directories that exist.
        config: the config.py in use, or None.
    """

    inventory: Path
    homes: tuple[Path, ...]
    group_data: tuple[Path, ...]
    config: Path | None

    def read_for(self, groups: Collection[str]) -> tuple[Path, ...]:
        """Return the group_data files that apply to some host, in the order in which they are read.

        Args:
            groups: of the inventory's hosts; every host is in `all`.
        """
        names = ["all", *sorted({*groups} - {"all", self.inventory.stem}), self.inventory.stem]
        paths = [directory / f"{name}.py" for directory in self.group_data for name in names]
        return tuple(path for path in paths if path.is_file())


def files_of(inventory: Path, working_directory: Path) -> SettingsFiles:
    """Return the files of an inventory: beside it, above it, and in the working directory.

    Args:
        inventory: an existing file, absolute or relative to `working_directory`.
        working_directory: absolute.
    """
    path = (working_directory / inventory).resolve()
    beside = path.parent
    here, above = working_directory.resolve(), _above(beside)
    homes = _distinct([here, *above, beside])
    group_data = tuple(home / GROUP_DATA for home in homes if (home / GROUP_DATA).is_dir())
    config = next((home / CONFIG for home in (beside, *above, here) if (home / CONFIG).is_file()), None)
    return SettingsFiles(path, homes, group_data, config)


def _above(beside: Path) -> list[Path]:
    """Return the nearest directory above that has group_data, else the next one; none where strangers may write.

    What is found is executed: a group_data that anybody may have put into /tmp must not be.
    """
    trusted = list(takewhile(_is_ours, beside.parents))
    return [parent for parent in trusted if (parent / GROUP_DATA).is_dir()][:1] or trusted[:1]


def _is_ours(directory: Path) -> bool:
    status = directory.stat()
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & stat.S_IWOTH


def require_read(files: SettingsFiles, group_data: Iterable[Path], config: Path | None) -> None:
    """Refuse a run that has missed some of an inventory's files.

    Args:
        files: of the inventory.
        group_data: directories that the run has read.
        config: the config.py that it has read, or None.

    Raises:
        Refusal: naming the missed files, and the directory to run from.
    """
    read = {directory.resolve() for directory in group_data}
    missed = [directory for directory in files.group_data if directory.resolve() not in read]
    if files.config is not None and (config is None or config.resolve() != files.config.resolve()):
        missed.append(files.config)
    if missed:
        raise Refusal(
            f"pyinfra has not read {' and '.join(map(str, missed))}",
            needed=f"all settings of {files.inventory}: pyinfra looks for them in the working directory",
            fix=f"cd {missed[0].parent}, and run the same command with --data and paths as seen from there",
        )


def require_named_groups(files: SettingsFiles, groups: Collection[str]) -> None:
    """Refuse a group_data file whose name differs from a group's by dashes, dots or case alone: it applies to no host.

    Raises:
        Refusal: naming the file and the group.
    """
    inventories = {path.stem for path in files.inventory.parent.glob("*.py")}
    plain = {_plain(group): group for group in (*groups, "all", files.inventory.stem)}
    for directory in files.group_data:
        for path in sorted(directory.glob("*.py")):
            group = plain.get(_plain(path.stem))
            if group is not None and path.stem not in {*groups, "all", *inventories}:
                raise Refusal(
                    f"{path} applies to no host: no group or inventory is called '{path.stem}'",
                    needed=f"the name of a group of {files.inventory.name}",
                    fix=f"rename it to {group}.py",
                )


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _distinct(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the paths without repetition, each at its last place: that is where it takes precedence."""
    return tuple(dict.fromkeys(reversed(paths)))[::-1]
