"""A host as the inventory names it."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    name: str
    address: str
    interface: str | None
    gpu: str
    gpus: int
    devices: tuple[str, ...] = ()
