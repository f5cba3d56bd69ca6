"""Ask every host of an inventory but its monitors about its weights, all at once, in one session each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.hosts.connect import connected
from muster.hosts.programs import Answer
from muster.hosts.run_programs import ask_all
from muster.spec import inventory, inventory_source

READ_SECONDS = 7200


def every_host(
    inventory_file: str, overrides: Mapping[str, Any], program: str, request: Mapping[str, Any]
) -> dict[str, Answer]:
    """Connect, ask, disconnect; return host -> answer.

    Args:
        inventory_file: pyinfra's.
        overrides: settings that beat the rest.
        program: module of `muster.on_host`.
        request: what its `main` takes, the same on every host.

    Raises:
        Refusal: a host that cannot be reached or answers with an error.
    """
    with connected(inventory_source.load(inventory_file, overrides), needs_all=True) as there:
        monitors = {*inventory.outside_hosts(there.state.inventory)} - {*inventory.leaving_hosts(there.state.inventory)}
        hosts = [host for host in there.state.inventory if host.name not in monitors]
        return ask_all(there.state, hosts, program, request, seconds=READ_SECONDS)
