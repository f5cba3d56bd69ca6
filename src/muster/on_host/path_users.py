"""Who on this host uses a path: units and files of groups that name it, and processes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from muster.on_host import kept_plans, safe_paths, whole_files


def users_of(path: str, etc: str = "/etc", proc: str = "/proc") -> list[str]:
    """Return the unit files, group files and processes that name a path.

    Args:
        path: of a release, a revision, a program.
        etc, proc: where units and processes are searched (tests).
    """
    return [file for file in _files(etc) if path in _start(file)] + processes_of(path, proc)


def processes_of(path: str, proc: str = "/proc") -> list[str]:
    """Return the processes whose command line names a path, as `process 1234`."""
    mine = str(os.getpid())
    pids = [pid for pid in safe_paths.names_in(proc) if pid.isdigit() and pid != mine]
    return [f"process {pid}" for pid in pids if path in _start(f"{proc}/{pid}/cmdline")]


def _files(etc: str) -> Iterator[str]:
    """Yield muster's units, and every file of every group: a plan that is kept to go back to counts as well."""
    units = etc + "/systemd/system"
    yield from (os.path.join(units, name) for name in safe_paths.names_in(units) if name.startswith("muster-"))
    for directory, _, names in os.walk(etc + "/muster"):
        yield from (os.path.join(directory, name) for name in sorted(names))


def _start(path: str) -> str:
    return whole_files.read_start(path, kept_plans.LIMIT) or ""  # no file of a group is larger
