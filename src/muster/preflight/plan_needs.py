"""Works out what a plan and its settings need of each host."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from muster.plan import conflicts, cuda_variants
from muster.plan.release import chosen
from muster.plan.types import HostPlan, Plan
from muster.preflight.host_report import HostReport, PathFacts
from muster.preflight.needs import Needs, PathNeed, PortNeed
from muster.spec import hardware
from muster.spec.host import HostSpec
from muster.spec.settings import Settings

GIB = hardware.GIB
# A vLLM release with CUDA libraries takes about 9 GiB, and uv unpacks the largest wheel beside it; the CPU build 3.
ENGINE_BYTES = 14 * GIB
CPU_ENGINE_BYTES = 4 * GIB
# A copy that is nearly as large as the shape says is taken for whole.
WHOLE = 0.95
# One engine process per GPU, without page cache; and the shared-memory rings of NCCL and vLLM.
MEMORY_PER_GPU = 4 * GIB
SHM_PER_GPU = GIB // 4


def needs_of_host(spec: HostSpec | HostPlan, settings: Settings, hosts: int) -> Needs:
    """Return what a host of an inventory must have, whatever it will serve.

    Args:
        spec: the host.
        settings: of the group.
        hosts: how many there are.
    """
    product, wanted = hardware.gpu(spec.gpu, host=spec.name), chosen(settings)
    return Needs(
        host=spec.name,
        hosts=hosts,
        product=product.product,
        gpus=spec.gpus,
        devices=spec.devices,
        env=spec.env,
        memory_mib=product.memory_mib,
        vllm=settings.vllm_version,
        torch_backend="auto" if wanted.assumed else wanted.cuda_variant,
        min_driver=settings.min_driver,
        address=spec.address,
        interface=spec.interface,
        memory_bytes=MEMORY_PER_GPU * spec.gpus,
        shm_bytes=SHM_PER_GPU * spec.gpus,
        rdma=settings.preflight.rdma,
        # Without a recipe, no group of muster's counts as a stranger.
        units=("muster-",),
        paths=(
            PathNeed("/tmp", "temporary files", executable=True),
            PathNeed(settings.root, "the engine", executable=True),
            PathNeed(settings.hf_home, "weights"),
        ),
    )


def without_others(need: Needs, ours: Collection[str | None], groups: Mapping[str, Mapping[str, Any]]) -> Needs:
    """Return needs without the units of other groups on the host, whose names may look like the group's own.

    Args:
        need: of the host.
        ours: the group that is planned, and the one that it replaces.
        groups: name -> its plan.json on the host.
    """
    others = {unit for name, manifest in groups.items() if name not in ours for unit in manifest.get("units", ())}
    return replace(need, units=tuple(unit for unit in need.units if unit not in others))


def needs_of_plan(plan: Plan, settings: Settings) -> dict[str, Needs]:
    """Return what every host of a plan must have, by name."""
    weights = _weights(plan, settings)
    return {name: _needs_of(plan, host, settings, weights) for name, host in plan.hosts.items()}


def _needs_of(plan: Plan, host: HostPlan, settings: Settings, weights: PathNeed) -> Needs:
    """Return what one host must have for its part of a plan."""
    base = needs_of_host(host, settings, len(plan.hosts))
    engine = CPU_ENGINE_BYTES if plan.cuda_variant == cuda_variants.CPU.name else ENGINE_BYTES
    fit = plan.memory
    return replace(
        base,
        vllm=plan.vllm_version,
        # Under `auto` the drivers would decide; a bundle's wheels already have.
        torch_backend=base.torch_backend if plan.cuda_variant else None,
        cuda_variant=plan.cuda_variant,
        gpu_bytes=None if fit is None else fit.used + int(fit.token_bytes * fit.needed_tokens),
        utilization=1.0 if fit is None else fit.utilization,
        oversubscribe=settings.allow_oversubscription,
        filtered=True,
        peer_ports=tuple(one.first for one in host.firewall.openings if one.audience != "clients"),
        ports=tuple(PortNeed(port, _port_names(settings).get(port, "a rank")) for port in host.ports),
        paths=(
            *base.paths[:1],
            PathNeed(plan.release.path, "the engine", engine if plan.release.managed else 0, executable=True),
            weights,
        ),
        # Also those of another strategy or supervisor, and of the former group: this deploy replaces them.
        units=tuple(
            f"muster-{group}{part}.service"
            for group in dict.fromkeys((plan.group, settings.former_group or plan.group))
            for part in ("", "-vllm", "-ray", "-weights")
        ),
        release=plan.release.path,
        versions={"vllm": plan.vllm_version},
        ray=conflicts.RAY_WITH_TOKENS if any(process.name == "ray" for process in host.processes) else None,
        files={path: file.sha256 for path, file in host.files.items()},
        model={} if plan.model.startswith("/") else {"cache": f"{settings.hf_home}/hub", "repository": plan.model},
        revision=settings.revision,
    )


def _port_names(settings: Settings) -> Mapping[int, str]:
    return {
        settings.port: "port",
        settings.rpc_port: "rpc_port",
        settings.master_port: "master_port",
        settings.ray_port: "ray_port",
        settings.control_port: "control_port",
        **{settings.keep_weights_port + number: "keep_weights_port" for number in range(4)},
    }


def _weights(plan: Plan, settings: Settings) -> PathNeed:
    if plan.model.startswith("/"):
        staged = settings.weights
        if staged.kind == "none" or not plan.model.startswith(staged.root + "/"):
            return PathNeed(plan.model, "weights")
        return PathNeed(staged.root, "weights", bytes=plan.weight_bytes, held=plan.model)
    held = f"{settings.hf_home}/hub/models--{plan.model.replace('/', '--')}"
    wanted = 0 if settings.offline else plan.weight_bytes
    return PathNeed(settings.hf_home, "weights", bytes=wanted, held=held)


def to_download(plan: Plan, reports: Iterable[HostReport], needs: Mapping[str, Needs]) -> tuple[str, ...]:
    """Return the hosts whose engine would download weights while it starts, inside `ready_timeout`.

    Args:
        plan: of the group.
        reports: of its hosts.
        needs: of its hosts.
    """
    if plan.weights is None or plan.weights.kind != "download":
        return ()
    lacking = []
    for report in reports:
        for need in needs[report.host].paths:
            facts = report.paths.get(need.path)
            if need.what == "weights" and isinstance(facts, PathFacts) and facts.held < WHOLE * need.bytes:
                lacking.append(report.host)
    return tuple(lacking)
