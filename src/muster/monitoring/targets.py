"""What is scraped of a group: its guard, its engines, its hosts and their GPUs; and of an edge. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from muster.on_host import places
from muster.plan.endpoint import Endpoint
from muster.plan.types import HostPlan, Plan
from muster.spec.settings import Edge, Settings

NODE_PORT = 9100
"""Where the node exporter of Debian and Ubuntu listens."""

GUARD, ENGINE, NODE, DCGM = "guard", "engine", "node", "dcgm"
KINDS = (GUARD, ENGINE, NODE, DCGM)
EDGE, CERTIFICATE = "edge", "certificate"
"""Kinds of an edge, which is before all groups: its metrics, and the certificate that it serves."""
CERTIFICATE_MODULE = "edge_certificate"
"""Of the blackbox exporter: reads a certificate whoever signed it and whatever it is for, since clients judge that."""


@dataclass(frozen=True)
class Target(Endpoint):
    """One address that answers `/metrics`, and the labels of everything that it says."""

    labels: tuple[tuple[str, str], ...]


def targets_of(plan: Plan, settings: Settings) -> dict[str, tuple[Target, ...]]:
    """Return kind -> targets of a group, in the order of KINDS; a kind that the group has none of is left out.

    The head's guard speaks for all guards, and names the host in each of its own lines.
    """
    hosts = tuple(plan.hosts.values())
    found = {
        GUARD: tuple(_guards(plan, settings)),
        ENGINE: tuple(_target(plan, host, settings.port) for host in hosts if host.answers),
        NODE: tuple(_target(plan, host, NODE_PORT) for host in hosts),
        DCGM: tuple(
            _target(plan, host, port) for host in hosts for port in (settings.monitoring.dcgm_port,) if port is not None
        ),
    }
    return {kind: targets for kind, targets in found.items() if targets}


def edge_targets(name: str, address: str, settings: Edge) -> dict[str, Target]:
    """Return kind -> target of an edge: no label names a group."""
    labels = (("host", name),)
    return {
        EDGE: Target(name, address, settings.monitor_port, labels),
        CERTIFICATE: Target(name, address, settings.port, (*labels, ("__param_module", CERTIFICATE_MODULE))),
    }


def _guards(plan: Plan, settings: Settings) -> Iterator[Target]:
    """Yield the head's guard, and that of the daemons that keep the weights, which speaks for a group of its own."""
    if plan.heals:
        yield _target(plan, plan.head, settings.control_port, rank=False)
    if plan.head.weights is not None:
        labels = (("group", places.weights_group(plan.group)), ("host", plan.head.name))
        yield Target(plan.head.name, plan.head.address, settings.keep_weights_port, labels)


def _target(plan: Plan, host: HostPlan, port: int, *, rank: bool = True) -> Target:
    labels = [("group", plan.group), ("host", host.name), *([("rank", str(host.node_rank))] if rank else [])]
    return Target(host.name, host.address, port, tuple(labels))
