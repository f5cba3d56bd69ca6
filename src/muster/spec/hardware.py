"""GPU products: what they are called, how much memory they have, and what they need from the host."""

from __future__ import annotations

from dataclasses import dataclass

from muster.errors import unknown

MIB = 1024**2
GIB = 1024**3


GENERATIONS = {"9": "hopper"}
"""Major compute capability -> name."""


@dataclass(frozen=True)
class Gpu:
    """A GPU product as `nvidia-smi --query-gpu=name,memory.total` prints it."""

    profile: str
    """The short name used in inventories."""
    product: str
    memory_mib: int
    gigabytes: int
    """Of memory, as the product is sold; vendors and vLLM's catalogue count so."""
    compute_capability: str = "9.0"

    @property
    def generation(self) -> str:
        """Name of the architecture, as recipes write it."""
        return GENERATIONS[self.compute_capability.partition(".")[0]]

    @property
    def memory_bytes(self) -> int:
        """Total memory in bytes."""
        return self.memory_mib * MIB


# H200: recorded from a 2x H200 host. H20, H20-3e: vendor's product names. H800, H100: 80 GB SXM parts,
# 81559 MiB is what that memory size prints.
GPUS: dict[str, Gpu] = {
    gpu.profile: gpu
    for gpu in (
        Gpu("H800", "NVIDIA H800", 81559, 80),
        Gpu("H200", "NVIDIA H200", 143771, 141),
        Gpu("H20", "NVIDIA H20", 97871, 96),
        Gpu("H20-3e", "NVIDIA H20-3e", 143771, 141),
        Gpu("H100", "NVIDIA H100 80GB HBM3", 81559, 80),
    )
}


def gpu(profile: str, *, host: str = "") -> Gpu:
    """Return the GPU product of an inventory's `gpu` value.

    Raises:
        Refusal: an unknown profile; the nearest known one is suggested.
    """
    try:
        return GPUS[profile]
    except KeyError:
        raise unknown("gpu", profile, GPUS, where=host) from None
