"""A sandbox as a pyinfra inventory: its hosts and how SSH reaches them, from state.json alone."""

from __future__ import annotations

import os
from typing import Any

from muster.errors import Refusal
from muster.sandbox import state_file
from muster.sandbox.names import INTERFACE

DEFAULT_NAME = "muster"


def chosen_name() -> str:
    """Return the name of the sandbox for inventories and commands (`MUSTER_SANDBOX`)."""
    return os.environ.get("MUSTER_SANDBOX") or DEFAULT_NAME


def hosts(name: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Return the hosts of a sandbox as pyinfra inventories write them.

    Args:
        name: of the sandbox; `chosen_name` when None.

    Raises:
        Refusal: it was never brought up.
    """
    where = state_file.place(name or chosen_name())
    state = state_file.load(where)
    if state is None or not state.hosts:
        raise Refusal(
            f"sandbox '{where.name}' is not up: there is no {where.state_file}",
            needed="a running sandbox, since its hosts' addresses are chosen when it comes up",
            fix=f"muster sandbox up --name {where.name}   (MUSTER_SANDBOX names another one)",
        )
    return [
        (
            host.name,
            {
                "ssh_hostname": host.address,
                "ssh_port": host.port,
                "ssh_user": host.user,
                "ssh_key": str(where.key),
                "ssh_known_hosts_file": str(where.known_hosts),
                "ssh_strict_host_key_checking": "yes",
                "gpu": host.gpu,
                "gpus": host.gpus,
                "fabric_address": host.address,
                "fabric_interface": INTERFACE,
            },
        )
        for host in state.hosts
    ]
