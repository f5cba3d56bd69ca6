"""Which CUDA build of the engine a driver can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from muster.errors import Refusal
from muster.spec.versions import version


@dataclass(frozen=True)
class Build:
    """A CUDA build of the engine's wheels.

    Args:
        name: the torch backend that uv and vLLM's per-version index call it by.
        cuda: what `torch.version.cuda` reads in it, major and minor.
        driver: the oldest driver branch that runs it.
    """

    name: str
    cuda: str
    driver: int


# CUDA 13 needs the 580 branch; CUDA 12.x runs from 525 on through minor-version compatibility.
CU130 = Build("cu130", "13.0", 580)
CU129 = Build("cu129", "12.9", 525)
CPU = Build("cpu", "none", 0)
BUILDS = {build.name: build for build in (CU130, CU129, CPU)}
# vLLM's default wheels are CUDA 13 since this version, CUDA 12.9 before.
FIRST_CUDA_13 = (0, 20)


def offered(vllm: str) -> tuple[Build, ...]:
    """Return the CUDA builds of a vLLM version, the preferred one first."""
    return (CU130, CU129) if (version(vllm) or FIRST_CUDA_13) >= FIRST_CUDA_13 else (CU129,)


def default(vllm: str) -> Build:
    """Return the build that the package index itself has: what is assumed while no driver has been asked."""
    return offered(vllm)[0]


def runnable(driver: str | None) -> tuple[Build, ...]:
    """Return the CUDA builds that a driver runs, whatever the engine's version."""
    found = version(driver) or (0,)
    return tuple(build for build in (CU130, CU129) if found[0] >= build.driver)


def choose(driver: str | None, *, vllm: str, wanted: str | None = "auto", host: str = "") -> Build:
    """Return the newest build of this vLLM that a driver runs.

    Args:
        driver: `580.159.04`, or None when no driver answers.
        vllm: the engine's version.
        wanted: `auto` or None to choose; a build's name to insist on it; `cpu` needs no driver.
        host: inventory name, for the message.

    Raises:
        Refusal: no driver, one that no build fits, or one too old for the build insisted on.
    """
    if wanted == CPU.name:
        return CPU
    choices = offered(vllm)
    if wanted not in (None, "auto"):
        choices = tuple(build for build in choices if build.name == wanted)
        if not choices:
            raise Refusal(
                f"torch_backend is {wanted}",
                needed=f"a build of vLLM {vllm}: {', '.join(b.name for b in offered(vllm))}, cpu or auto",
                fix="set torch_backend to auto",
            )
    found = version(driver)
    place = f"{host}: " if host else ""
    oldest = min(build.driver for build in choices)
    if found is None:
        raise Refusal(
            f"{place}no NVIDIA driver answers",
            needed=f"driver {oldest} or newer for vLLM {vllm}",
            fix="install the NVIDIA driver (580 or newer), reboot, and see that nvidia-smi answers",
        )
    for build in choices:
        if found[0] >= build.driver:
            return build
    raise Refusal(
        f"{place}driver {driver}",
        needed=f"driver {oldest} or newer: no build of vLLM {vllm} runs on an older one",
        fix="install driver 580 or newer and reboot",
    )


def oldest(drivers: Mapping[str, str | None]) -> str:
    """Return the host with the oldest driver; one without any is older still."""
    return min(drivers, key=lambda name: version(drivers[name]) or ())


def choose_for(drivers: Mapping[str, str | None], *, vllm: str, wanted: str | None = "auto") -> Build:
    """Return the build for a whole group: what its oldest driver runs, since all ranks run one build.

    Args:
        drivers: host -> driver version.

    Raises:
        Refusal: as `choose`, naming the host with the oldest driver.
    """
    host = oldest(drivers)
    return choose(drivers[host], vllm=vllm, wanted=wanted, host=host)
