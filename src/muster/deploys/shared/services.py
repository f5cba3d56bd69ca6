"""Services of the distribution with files of muster's: what differs on a host, and how it is put in place."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.facts.server import Which
from pyinfra.operations import apt

from muster.deploys.place_files import item
from muster.errors import Refusal
from muster.hosts import operations
from muster.hosts.program_operation import Session
from muster.hosts.run_programs import run_program
from muster.monitoring.machines import Machine

_SECONDS = 120


def require_apt(hosts: Iterable[Host], *, fix: str) -> None:
    """Refuse machines whose packages muster cannot install.

    Args:
        hosts: those that get packages.
        fix: what to do about a machine of another distribution.

    Raises:
        Refusal: those without apt, all of them.
    """
    wrong = [host.name for host in hosts if not host.get_fact(Which, command="apt-get")]
    if wrong:
        raise Refusal(
            f"{', '.join(wrong)}: no apt-get",
            needed="Debian or Ubuntu: packages come from the distribution",
            fix=fix,
        )


def differing(state: State, host: Host, tree: str, machine: Machine) -> bool:
    """Ask a machine whether a file is not as planned, or a unit does not run or not start at boot.

    Args:
        state, host: pyinfra's.
        tree: directory whose files are checked together before one is written.
        machine: what it gets.

    Raises:
        DeployError: it does not say.
    """
    answer = run_program(state, host, "place_services", _request("compare", tree, machine), seconds=_SECONDS)
    if "error" in answer:
        raise DeployError(f"{host.name}: {answer['error']}")
    return bool(answer["changed"] or answer["units"])


def install(tree: str, machine: Machine, missing: Collection[str], *, early: str, packages: str) -> None:
    """Install packages of the distribution. One starts its service at once: what that reads is in place by then.

    Args:
        tree, machine: as of `differing`.
        missing: packages of it that are not there; with none nothing changes.
        early, packages: what is so afterwards, of the files and of the packages, in words.
    """
    operations.carried_out(placing(tree, machine.before_packages) if missing else None, name=early)
    apt.packages(name=packages, packages=list(machine.packages), update=bool(missing), no_recommends=True)


def placing(tree: str, machine: Machine) -> Session:
    """Return the session that checks and writes what differs, and loads its units; arguments as of `differing`."""
    paths = ", ".join((*machine.early, *machine.files))
    return Session("place_services", _request("place", tree, machine), f"check and write what differs of {paths}")


def _request(do: str, tree: str, machine: Machine) -> dict[str, Any]:
    files = {**machine.early, **machine.files}
    return {
        "do": do,
        "tree": tree,
        "checks": machine.checks,
        "units": machine.units,
        "files": [item(path, file) | ({"text": ""} if do == "compare" else {}) for path, file in files.items()],
    }
