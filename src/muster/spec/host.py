"""A host as the inventory names it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.errors import Refusal, literal, shown
from muster.spec import safe_text

# Network devices have names of their own on each host.
PER_HOST_ENV = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_IB_HCA", "NCCL_IB_GID_INDEX")


@dataclass(frozen=True)
class HostSpec:
    """A host as the inventory names it.

    Args:
        name: inventory name.
        address: the address peers reach it at, on the fabric.
        interface: the network interface that carries the address; None lets the engine choose.
        gpu: hardware profile name.
        gpus: number of GPUs that the group uses.
        devices: which of the host's GPUs, by index or UUID; empty takes the first by index.
        env: environment of this host's ranks that differs from other hosts', of the names in PER_HOST_ENV.
    """

    name: str
    address: str
    interface: str | None
    gpu: str
    gpus: int
    devices: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


def host_of(name: str, data: Mapping[str, Any], where: str) -> HostSpec:
    """Return what an inventory says of a host.

    Args:
        name: of the host in the inventory.
        data: as pyinfra merged it.
        where: inventory name, for messages.

    Raises:
        Refusal: no GPUs, no address, or text that is none.
    """
    for key, what in (("gpu", "the GPU product, such as H800"), ("gpus", "the number of GPUs")):
        if key not in data:
            raise Refusal(f"{where}: {name} has no '{key}'", needed=what, fix=f"give '{key}' in the inventory")
    address = address_in(name, data, where)
    if not isinstance(data["gpus"], int) or isinstance(data["gpus"], bool) or not 0 < data["gpus"] <= 64:
        raise Refusal(f"{where}: {name}: gpus is {literal(data['gpus'])}", needed="a number of GPUs, 1 to 64")
    interface = data.get("fabric_interface")
    for key, value, check in (("its name", name, safe_text.line), ("fabric_interface", interface, safe_text.interface)):
        try:
            if value is not None:
                check(str(value))
        except ValueError as error:
            raise Refusal(f"{where}: {shown(name)}: {key} is {literal(value)}", needed=str(error)) from None
    return HostSpec(name, address, interface, str(data["gpu"]), data["gpus"], _devices(name, data, where))


def address_in(name: str, data: Mapping[str, Any], where: str) -> str:
    """Return the IP address at which other hosts reach a host; arguments and errors as of `host_of`."""
    given = data.get("fabric_address") or data.get("ssh_hostname") or name
    try:
        return safe_text.address(str(given))
    except ValueError as error:
        raise Refusal(
            f"{where}: {name} has no address of its own: '{shown(str(given))}' is not {error}",
            needed="the IP address that the other hosts reach it at",
            fix="give 'fabric_address' in the inventory",
        ) from None


def _devices(name: str, data: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return which GPUs of the host the group uses, by index or UUID; empty for the first ones."""
    given = data.get("gpu_devices") or ()
    devices = tuple(str(each) for each in given) if isinstance(given, (list, tuple)) else ()
    bad = [each for each in devices if not re.fullmatch(r"\d{1,3}|GPU-[0-9a-fA-F-]{8,40}", each)]
    if bad or (given and len(set(devices)) != data["gpus"]):
        raise Refusal(
            f"{where}: {name}: gpu_devices is {literal(given)}, gpus is {data['gpus']}",
            needed="a list of as many different GPUs as `gpus`, by index or UUID (nvidia-smi -L)",
        )
    return devices
