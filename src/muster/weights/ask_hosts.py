"""Ask every host of a group about its weights, all at once, in one session each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.hosts.connect import connected
from muster.hosts.programs import Answer
from muster.hosts.run_programs import ask_all
from muster.spec import inventory, inventory_source

READ_SECONDS = 7200


def every_host(
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    program: str,
    request: Mapping[str, Any],
) -> dict[str, Answer]:
    """Connect, ask, disconnect; return host -> answer, of those that leave the group too.

    Args:
        inventory_file: pyinfra's.
        recipe_name: of the group that is meant, where the inventory has several.
        overrides: settings that beat the rest.
        program: module of `muster.on_host`.
        request: what its `main` takes, the same on every host.

    Raises:
        Refusal: a host that cannot be reached or answers with an error.
    """
    loaded = inventory_source.load(inventory_file, overrides)
    scope = inventory.scope_of(loaded, recipe_name)
    names = scope.hosts | (scope.members & {*inventory.leaving_hosts(loaded)})
    with connected(loaded, needs_all=True, names=names) as there:
        hosts = [host for host in there.state.inventory if host.name in names]
        return ask_all(there.state, hosts, program, request, seconds=READ_SECONDS)
