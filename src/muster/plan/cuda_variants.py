"""Which CUDA variant of the engine a driver runs, and when the drivers call for another one than the plan assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from muster.errors import Refusal
from muster.spec.versions import version


@dataclass(frozen=True)
class Variant:
    """One CUDA variant of the engine's wheels.

    Args:
        name: the torch backend that uv and vLLM's per-version index call it by.
        cuda: what `torch.version.cuda` reads in it, major and minor.
        driver: the oldest driver branch that runs it.
    """

    name: str
    cuda: str
    driver: int


# CUDA 13 needs the 580 branch; CUDA 12.x runs from 525 on through minor-version compatibility.
CU130 = Variant("cu130", "13.0", 580)
CU129 = Variant("cu129", "12.9", 525)
CPU = Variant("cpu", "none", 0)
VARIANTS = {variant.name: variant for variant in (CU130, CU129, CPU)}
# vLLM's default wheels are CUDA 13 since this version, CUDA 12.9 before.
FIRST_CUDA_13 = (0, 20)


def offered(vllm: str) -> tuple[Variant, ...]:
    """Return the CUDA variants of a vLLM version, the preferred one first."""
    return (CU130, CU129) if (version(vllm) or FIRST_CUDA_13) >= FIRST_CUDA_13 else (CU129,)


def default(vllm: str) -> Variant:
    """Return the variant in the package index itself: assumed until a driver has been asked."""
    return offered(vllm)[0]


def runnable(driver: str | None) -> tuple[Variant, ...]:
    """Return the CUDA variants that a driver runs, whatever the engine's version."""
    branch = (version(driver) or (0,))[0]
    return tuple(variant for variant in (CU130, CU129) if branch >= variant.driver)


def choose(driver: str | None, *, vllm: str, requested: str | None = "auto", host: str = "") -> Variant:
    """Return the newest variant of this vLLM that a driver runs.

    Args:
        driver: `580.159.04`, or None when no driver answers.
        vllm: the engine's version.
        requested: `auto` or None to choose; a variant's name to insist on it; `cpu` needs no driver.
        host: inventory name, for the message.

    Raises:
        Refusal: no driver, one that no variant fits, or one too old for the variant insisted on.
    """
    if requested == CPU.name:
        return CPU
    choices = offered(vllm)
    if requested not in (None, "auto"):
        choices = tuple(variant for variant in choices if variant.name == requested)
        if not choices:
            raise Refusal(
                f"torch_backend is {requested}",
                needed=f"a build of vLLM {vllm}: {', '.join(v.name for v in offered(vllm))}, cpu or auto",
                fix="set torch_backend to auto",
            )
    installed = version(driver)
    place = f"{host}: " if host else ""
    oldest = min(variant.driver for variant in choices)
    if installed is None:
        raise Refusal(
            f"{place}no NVIDIA driver answers",
            needed=f"driver {oldest} or newer for vLLM {vllm}",
            fix="install the NVIDIA driver (580 or newer), reboot, and see that nvidia-smi answers",
        )
    for variant in choices:
        if installed[0] >= variant.driver:
            return variant
    raise Refusal(
        f"{place}driver {driver}",
        needed=f"driver {oldest} or newer: no build of vLLM {vllm} runs on an older one",
        fix="install driver 580 or newer and reboot",
    )


def oldest(drivers: Mapping[str, str | None]) -> str:
    """Return the host with the oldest driver; one without any is older still."""
    return min(drivers, key=lambda name: version(drivers[name]) or ())


def choose_for(drivers: Mapping[str, str | None], *, vllm: str, requested: str | None = "auto") -> Variant:
    """Return the variant for a whole group: what its oldest driver runs, since all ranks run one variant.

    Args:
        drivers: host -> driver version.

    Raises:
        Refusal: as `choose`, naming the host with the oldest driver.
    """
    host = oldest(drivers)
    return choose(drivers[host], vllm=vllm, requested=requested, host=host)


def other_variant(drivers: Mapping[str, str | None], *, vllm: str, assumed: str | None) -> str | None:
    """Return the variant that the hosts' drivers call for where the plan assumed another; None where the plan holds.

    Args:
        drivers: host -> driver version; hosts whose driver is not known are left out.
        vllm: the engine's version.
        assumed: the variant the plan assumed; None where a setting, or the user's own engine, decides.
    """
    if assumed is None or not drivers:
        return None
    try:
        chosen = choose_for(drivers, vllm=vllm)
    except Refusal:
        return None  # preflight's driver check says so, by host
    return chosen.name if chosen.name != assumed else None
