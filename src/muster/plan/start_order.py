"""The order of bring-up: which processes start together, and what must answer before the next ones."""

from __future__ import annotations

from muster.plan.group import Group
from muster.plan.types import Check, Step

Layer = tuple[str, tuple[str, ...]]
"""A process, and the hosts that start it together."""


def _layers(group: Group) -> tuple[Layer, ...]:
    """Return the layers; each starts when the one before it is up.

    Without Ray, guards start every rank at once, when the last host has joined; plain units start the head first.
    """
    names = tuple(node.host.name for node in group.topology.nodes)
    head, rest = names[:1], names[1:]
    if group.uses_ray:
        layers: tuple[Layer, ...] = (("ray", head), ("ray", rest), ("vllm", head))
    elif group.guarded:
        layers = (("vllm", names),)
    else:
        layers = (("vllm", head), ("vllm", rest))
    return tuple((process, hosts) for process, hosts in layers if hosts)


def _printed(layer: Layer) -> tuple[str, ...]:
    process, hosts = layer
    return tuple(f"{host}:{process}" for host in hosts)


def steps_of(group: Group) -> tuple[Step, ...]:
    """Return the layers of bring-up: units, and what must then answer. The last checks say that the group is ready."""
    if group.guarded:
        return (_guards(group),)
    steps = []
    layers = _layers(group)
    for number, (process, hosts) in enumerate(layers):
        steps.append(
            Step(
                text=_text(group, process, is_first=number == 0),
                units={host: (group.unit_of(process),) for host in hosts},
                checks=_checks(group, number, is_last=number == len(layers) - 1),
                order=(_printed((process, hosts)),),
            )
        )
    return tuple(steps)


def _text(group: Group, process: str, *, is_first: bool) -> str:
    if process == "ray":
        return "Ray head" if is_first else "Ray workers"
    if group.uses_ray or group.topology.hosts == 1:
        return "vLLM"
    return "head" if is_first else "other hosts" if group.layout.load_balancing == "hybrid" else "headless ranks"


def _checks(group: Group, layer: int, *, is_last: bool) -> tuple[Check, ...]:
    head, settings = group.topology.head.host, group.settings
    if is_last:
        url = f"http://127.0.0.1:{settings.port}/health"
        return tuple(
            Check(
                node.host.name,
                "http",
                url,
                f"{'the head' if node.is_head else 'every host'} answers /health on port {settings.port}",
            )
            for node in group.topology.nodes
            if group.answers(node)
        )
    if not group.uses_ray:
        return ()  # the head waits for its headless ranks, so it cannot answer before they start
    if layer == 0:
        target = f"{head.address}:{settings.ray_port}"
        return (Check(head.name, "tcp", target, f"Ray listens on {target}"),)
    command = ("/usr/bin/env", *group.ray_question(), "0")
    return (Check(head.name, "command", command, f"{group.layout.world_size} GPUs have joined Ray"),)


def _guards(group: Group) -> Step:
    """The guards start together, in any order; they bring their ranks up in order by themselves."""
    head = group.topology.head.host
    url = f"http://{head.address}:{group.settings.control_port}/ready"
    return Step(
        text="guards",
        units={node.host.name: (group.guard_unit,) for node in group.topology.nodes},
        checks=(Check(head.name, "http", url, "every DP rank has answered the guard"),),
        order=tuple(_printed(layer) for layer in _layers(group)),
    )
