"""The way of one group out of the edges of its fleet, before a command stops it.

A group must stop whatever is wrong elsewhere: what keeps it from leaving an edge first is said, and refuses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyinfra import logger
from pyinfra.api.state import State

from muster.deploys.edge_drain import EdgeDrain, back_in_the_edge, out_of_the_edge
from muster.deploys.edge_servers import as_deployed, look, servers_of
from muster.deploys.shared.gate import gate
from muster.deploys.shared.progress import Progress
from muster.edge.groups_behind import groups_behind
from muster.errors import Refusal
from muster.hosts.all_hosts import reached
from muster.spec import inventory
from muster.spec.inventory import Scope


def way_out(
    state: State, scope: Scope, seconds: int, returns: Mapping[str, Mapping[str, Any]] | None = None
) -> EdgeDrain | None:
    """Return how a group gets out of the edges before it is stopped, once it was said what clients will notice.

    Args:
        state: pyinfra's.
        scope: of the run.
        seconds: that requests in flight get before they are cut.
        returns: host -> manifest of the plan that is started again; nothing where none is.

    Returns:
        None where no edge is told: there is none, or nobody else serves its model and it answers where it did.
    """
    names = inventory.edges_if_any(state.inventory) if scope.group else {}
    if not names:
        return None
    hosts = {name: host for name, host in reached(state).items() if name in names}
    try:
        behind = groups_behind(inventory.groups_of(state.inventory, name="inventory"), None)
    except Refusal as refusal:
        logger.warning(f"{scope.name} is stopped without leaving the edge first: {refusal.found}")
        return None
    plan = behind.plans[scope.group]
    planned = next(group for group in behind.plan.groups if group.name == scope.name)
    addresses = {name: host.address for name, host in plan.hosts.items()}
    then = as_deployed(planned, returns, addresses) if returns else None
    its, model = servers_of(then or planned), plan.served_model_name
    seen = look(state, hosts.values(), its)
    moves = frozenset(name for name, there in seen.items() if there.moves(its)) if then is not None else frozenset()
    for name in names:
        if name not in seen:
            logger.warning(f"{name} was not reached: its own checks of /ready have to take {scope.name} out there")
            if moves:
                logger.warning(f"{name} will not find {scope.name} where it answers then")
    stays = any(there.alone for there in seen.values())
    if stays:
        where = ", ".join(name for name, there in seen.items() if there.alone)
        logger.warning(f"{scope.name} alone serves {model} at {where}: nothing answers for it until it is back")
    asked = {name: host for name, host in hosts.items() if name in seen}
    return EdgeDrain(scope.name, model, its, asked, seconds, moves, stays) if asked and (moves or not stays) else None


def leave_edge(drain: EdgeDrain | None, progress: Progress) -> None:
    """Have clients go to other groups; `drain` as `way_out` returns it."""
    if drain is not None:
        out_of_the_edge(drain, progress)
        gate(progress, "the way out of the edge")


def return_to_edge(drain: EdgeDrain | None, progress: Progress) -> None:
    """Have a group that serves again back in the edges that `leave_edge` took it out of."""
    if drain is not None:
        back_in_the_edge(drain, progress)
