"""What a plan needs of one host, as data; checks compare it with the host's report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Rdma = Literal["auto", "required", "off"]


@dataclass(frozen=True)
class PortNeed:
    """A TCP port that the group listens on, and its purpose."""

    number: int
    what: str


@dataclass(frozen=True)
class PathNeed:
    """Space needed at a path.

    Args:
        path: absolute; it need not exist yet.
        what: will be stored there, in words.
        bytes: size of that.
        held: directory whose files count as already stored, or None.
        executable: programs run from it, so its mount must not be noexec.
    """

    path: str
    what: str
    bytes: int = 0
    held: str | None = None
    executable: bool = False


@dataclass(frozen=True)
class Needs:
    """What one host must have for its part of the plan; None or empty means no demand.

    Args:
        host: inventory name.
        hosts: how many hosts the group has.
        product: GPU name as nvidia-smi prints it.
        gpus: how many; `devices` which, by index or UUID (empty: the first by index).
        memory_mib: memory of each GPU, in MiB.
        vllm: the engine's version.
        torch_backend: `auto`, a variant's name, or `cpu`, which no driver is too old for; None where the user's own
            engine or index decides.
        cuda_variant: planned for the whole group; None while it is not known.
        min_driver: oldest driver that the settings allow, such as `570.124`.
        gpu_bytes: what one GPU must hold before the cache, in bytes; `utilization` is the share it may use.
        oversubscribe: go on where that does not fit.
        address, interface: where peers reach this host, and on which interface (None: any).
        ports, paths: listeners and disk; `peer_ports` those that the other hosts of the group connect to.
        filtered: whether the plan brings a firewall table and IP filters of its own.
        memory_bytes, shm_bytes: of RAM and /dev/shm.
        rdma: whether RDMA must be there.
        env: NCCL's variables of this host's ranks that differ from other hosts'.
        units: this group's own units, or how their names begin; what they hold is not a stranger's.
        release: the engine's virtual environment; `versions` what must be installed in it once it is there.
        ray: the oldest Ray that the group may run; None where it runs none.
        files: path -> planned sha256, for drift.
        model: `cache` and `repository` where the model's revision can be read; `revision` the planned one.
    """

    host: str
    hosts: int = 1
    product: str | None = None
    gpus: int = 0
    devices: tuple[str, ...] = ()
    memory_mib: int | None = None
    vllm: str = ""
    torch_backend: str | None = "auto"
    cuda_variant: str | None = None
    min_driver: str | None = None
    gpu_bytes: int | None = None
    utilization: float = 1.0
    oversubscribe: bool = False
    address: str | None = None
    interface: str | None = None
    ports: tuple[PortNeed, ...] = ()
    peer_ports: tuple[int, ...] = ()
    paths: tuple[PathNeed, ...] = ()
    filtered: bool = False
    memory_bytes: int = 0
    shm_bytes: int = 0
    rdma: Rdma = "auto"
    env: tuple[tuple[str, str], ...] = ()
    units: tuple[str, ...] = ()
    machine: str = "x86_64"
    # Both vLLM's and torch's wheels are manylinux_2_28 (read from vLLM 0.32.0's file name).
    glibc: tuple[int, int] = (2, 28)
    # LoadCredential= came with systemd 247.
    systemd: int = 247
    release: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    ray: tuple[int, int, int] | None = None
    files: dict[str, str] = field(default_factory=dict)
    model: dict[str, str] = field(default_factory=dict)
    revision: str | None = None

    def in_own_unit(self, cgroup: str) -> bool:
        """Whether a process of this control group runs in one of the group's own units."""
        return any(f"/{unit}" in cgroup for unit in self.units)

    def requests(self, *, imports: float = 0.0) -> dict[str, dict[str, Any]]:
        """Return the request for each host program.

        Args:
            imports: seconds that importing the installed engine may take; 0 does not try it.
        """
        engine = {"path": self.release, "files": sorted(self.files), "model": self.model, "import": imports}
        # nvidia-smi takes a second and more on a real host; links between GPUs need two of them.
        alone = [] if self.gpus > 1 else ["nvlink", "topology"]
        return {
            "probe_gpus": {"without": alone},
            "probe_firewall": {},
            **({"probe_engine": engine} if self.release else {}),
            # Last: its reading of the clock bounds the offset from the side of the answer.
            "probe_machine": {
                "paths": {need.path: need.held for need in self.paths},
                "ports": sorted({need.number for need in self.ports}),
            },
        }
