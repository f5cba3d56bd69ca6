"""A host as the inventory names it."""

from __future__ import annotations

from dataclasses import dataclass

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
