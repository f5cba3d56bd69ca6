"""The way of one group out of the edges of its fleet, before a command stops it.

A group must stop whatever is wrong elsewhere: what keeps it from leaving an edge first is said, and refuses nothing.
"""

from __future__ import annotations

from pyinfra import logger
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.edge_drain import EdgeDrain, back_in_the_edge, out_of_the_edge, servers
from muster.deploys.shared.gate import gate
from muster.deploys.shared.progress import Progress
from muster.edge.groups_behind import groups_behind
from muster.errors import Refusal
from muster.hosts.all_hosts import each, reached
from muster.hosts.run_programs import run_program
from muster.spec import inventory
from muster.spec.inventory import Scope

_PROBE_SECONDS = 60


def way_out(state: State, scope: Scope, seconds: int) -> EdgeDrain | None:
    """Return how a group gets out of the edges before it is stopped, once it was said what clients will notice.

    Args:
        state: pyinfra's.
        scope: of the run.
        seconds: that requests in flight get before they are cut.

    Returns:
        None where it stays in until it is stopped: there is no edge, or nobody else serves its model.
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
    its, model = servers(behind.plan, scope.name), behind.plans[scope.group].served_model_name
    alone = _alone(state, hosts, its)
    for name in names:
        if name not in alone:
            logger.warning(f"{name} was not reached: its own checks of /ready have to take {scope.name} out there")
    if any(alone.values()):
        where = ", ".join(name for name, only in alone.items() if only)
        logger.warning(f"{scope.name} alone serves {model} at {where}: nothing answers for it until it is back")
        return None
    asked = {name: host for name, host in hosts.items() if name in alone}
    return EdgeDrain(scope.name, model, its, asked, seconds) if asked else None


def _alone(state: State, hosts: dict[str, Host], its: tuple[str, ...]) -> dict[str, bool]:
    """Return edge -> whether no other server of the model is up there, of the edges that answer."""
    request = {"do": "read", "servers": list(its)}
    answers = each(
        hosts.values(), lambda host: run_program(state, host, "drain_servers", request, seconds=_PROBE_SECONDS)
    )
    return {name: bool(answer["alone"]) for name, answer in answers.items() if "error" not in answer}


def leave_edge(drain: EdgeDrain | None, progress: Progress) -> None:
    """Have clients go to other groups; `drain` as `way_out` returns it."""
    if drain is not None:
        out_of_the_edge(drain, progress)
        gate(progress, "the way out of the edge")


def return_to_edge(drain: EdgeDrain | None, progress: Progress) -> None:
    """Have a group that serves again back in the edges that `leave_edge` took it out of."""
    if drain is not None:
        back_in_the_edge(drain, progress)
