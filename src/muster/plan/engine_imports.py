"""What an engine imports before it does anything, and a process that stands by for the next generation in advance."""

from __future__ import annotations

from muster.plan import vllm_versions

# With these an engine itself imported for 0.3 to 0.7 s (0.33.0, two H200s, 2026-11-27): they bring nearly all the rest.
_MODULES = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.serve",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.gpu_worker",
)


def modules(vllm_version: str) -> tuple[str, ...]:
    """Return the modules that a process which stands by imports; none for versions that fork no processes.

    Where processes are spawned each imports everything again, and little would be won.
    """
    return _MODULES if vllm_versions.version_of(vllm_version) >= vllm_versions.FORKS else ()
