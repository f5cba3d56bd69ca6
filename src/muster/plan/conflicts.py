"""Values of a group that contradict each other: what could only fail after the running group was stopped is refused."""

from __future__ import annotations

import re

from muster.errors import Refusal
from muster.on_host import places
from muster.plan import vllm_versions
from muster.plan.firewall import openings
from muster.plan.group import Group
from muster.plan.types import Opening
from muster.spec import reserved_variables

RAY_WITH_TOKENS = (2, 52, 0)
"""The first Ray that authenticates by token; an older one ignores RAY_AUTH_MODE=token and serves everybody."""
PROBED = 128
"""Ports that vLLM may try from VLLM_PORT on: it counts upwards until one is free."""


def check(group: Group) -> None:
    """Refuse values of a group that contradict each other.

    Raises:
        Refusal: a group whose directories are somebody else's, two listeners on one port, a port that only root can
            bind, a variable that the plan decides or that names a planned port, a Ray without token authentication.
    """
    _check_name(group)
    listeners = _listeners(group)
    _check_ports(listeners)
    for name, value in group.settings.extra_env.items():
        _check_variable(name, value, listeners)
    if group.uses_ray:
        _check_ray(group)


def _check_name(group: Group) -> None:
    """Refuse a name whose directories hold what is not the group's: `muster remove` takes them whole."""
    settings = group.settings
    others = [("root", settings.root), ("hf_home", settings.hf_home), ("weights_root", settings.weights.root)]
    others += [("a place of the whole host", place) for place in places.BESIDE_GROUPS]
    for own in (places.config, places.state, places.cache, places.run):
        place = own(group.name)
        for what, other in others:
            if f"{other}/".startswith(f"{place}/"):
                raise Refusal(
                    f"a group called {group.name} has {place}, and {what} is {other}",
                    needed="directories of a group's own: they are removed with it",
                    fix="give the group another name (setting group)",
                )


def _listeners(group: Group) -> list[Opening]:
    """Return every port range with a name that some host of the group binds, staging and preflight included."""
    settings = group.settings
    found = list(dict.fromkeys(opening for node in group.topology.nodes for opening in openings(group, node)))
    if settings.weights.kind != "none" or settings.engine_fanout:
        found.append(Opening(settings.weights.port, settings.weights.port, "peers", "weights_port"))
    if settings.preflight.pairs or settings.preflight.nccl:
        found.append(Opening(settings.preflight.port, settings.preflight.port, "peers", "preflight_port"))
    return found


def _check_ports(listeners: list[Opening]) -> None:
    for number, one in enumerate(listeners):
        if one.first < 1024:
            raise Refusal(
                f"{one.name} is {one.first}",
                needed="a port from 1024 on: the engine runs without privileges",
                fix=f"set {one.name} to another, and put a proxy in front for port {one.first}",
            )
        for other in listeners[number + 1 :]:
            if one.overlaps(other.first, other.last):
                raise Refusal(
                    f"{one.name} ({one.range}) and {other.name} ({other.range}) are one port",
                    needed="a port of its own for each listener of a host",
                    fix=f"set {other.name if '_' in other.name and ' ' not in other.name else one.name} to another",
                )


def _check_variable(name: str, value: str, listeners: list[Opening]) -> None:
    reserved_variables.check([name], where="extra_env")
    if "PORT" not in re.split(r"_", name.upper()) or not re.fullmatch(r"[0-9]{1,5}", value.strip()):
        return
    first = int(value)
    last = first + PROBED if name == "VLLM_PORT" else first
    for opening in listeners:
        if opening.overlaps(first, last):
            counts = f" (vLLM counts up from it, to {last})" if last > first else ""
            raise Refusal(
                f"extra_env sets {name}={first}{counts}, and {opening.name} is {opening.range}",
                needed="a port that the plan has not given away",
                fix=f"take another port for {name}, or leave it out",
            )


def _check_ray(group: Group) -> None:
    versions = [group.settings.ray_version]
    for requirement in map(str.strip, (*group.release.requirements, *group.release.overrides)):
        if not re.match(r"ray(?![\w.-])", requirement, re.I):
            continue
        exact = re.fullmatch(r"ray\s*(\[[^\]]*\])?\s*==\s*([0-9][\w.]*)\s*(;.*)?", requirement, re.I)
        if exact is None:
            raise Refusal(
                f"engine_requirements or overrides holds {requirement}",
                needed="one exact Ray: older ones serve everybody",
                fix="leave it out and set ray_version",
            )
        versions.append(exact[2])
    for version in versions:
        if vllm_versions.version_of(version) < RAY_WITH_TOKENS:
            raise Refusal(
                f"the group would run Ray {version}",
                needed="Ray 2.52.0 or newer: older ones ignore the group's token and run anybody's code",
                fix="set ray_version to 2.52.0 or newer, or executor to mp",
            )
