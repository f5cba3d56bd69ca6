"""Flag combinations that were seen to kill engines on GPUs, by vLLM version, and what makes them run.

One table, read by the plan: a fault that has a cure gets it, a fault that the user's own flags insist on is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from muster.errors import Refusal
from muster.plan import cache_size
from muster.plan.layout import Layout
from muster.plan.vllm_versions import Version, version_of
from muster.spec.hardware import Gpu
from muster.spec.shape import Shape
from muster.spec.strategy import FlagValue

Flags = Mapping[str, FlagValue]


@dataclass(frozen=True)
class Situation:
    """What a fault is judged by.

    Args:
        flags: recipe's and settings' flags, and over them the values that `extra_args` gives.
        layout: parallel sizes.
        gpu: the product all hosts have.
        shape: of the model, where it is known.
    """

    flags: Flags
    layout: Layout
    gpu: Gpu
    shape: Shape | None


@dataclass(frozen=True)
class KnownFault:
    """One way an engine was seen to die.

    Args:
        name: stable, for messages and docs.
        since: first vLLM version it was seen in.
        until: first version it was seen to be gone in; None while none is known.
        happens: whether it strikes in a situation.
        what: what happens, in words.
        cure: flags that make it run; they are set where the user says nothing about them.
        source: where it was seen.
        otherwise: what else the user can change, for the refusal.
    """

    name: str
    since: Version
    until: Version | None
    happens: Callable[[Situation], bool]
    what: str
    cure: Flags
    source: str
    otherwise: str = ""


def _fp8_cache_dcp_flashmla(at: Situation) -> bool:
    hopper = at.gpu.compute_capability.startswith("9.")
    backend = str(at.flags.get("attention-backend", "FLASHMLA")).upper()
    latent = at.shape is not None and at.shape.kv_lora_rank > 0
    return hopper and latent and cache_size.is_fp8(at.flags) and at.layout.dcp > 1 and backend == "FLASHMLA"


def _weights_kept_of_experts(at: Situation) -> bool:
    return at.flags.get("load-format") == "ipc_cache" and at.shape is not None and at.shape.n_routed_experts > 0


FAULTS = (
    KnownFault(
        name="fp8-cache-dcp-flashmla",
        since=(0, 26, 0),
        until=None,
        happens=_fp8_cache_dcp_flashmla,
        what="an FP8 cache with decode context parallel dies in FlashMLA while starting or at the first short prompt:"
        " a rank that holds no token of a sequence reads in front of its block table",
        cure={"attention-backend": "TRITON_MLA"},
        source="H100, vLLM 0.33.0, 7 of 7 engines with the published flags, full and piecewise CUDA graphs,"
        " 2026-11-27; 2x H200, vLLM 0.26.0; vLLM issue 33664",
        otherwise="set decode_context_parallel_size to 1",
    ),
    KnownFault(
        name="ipc-cache-moe",
        since=(0, 33, 0),
        until=None,
        happens=_weights_kept_of_experts,
        what="an engine that maps the weights of a model with experts from `vllm preload` dies of an illegal memory"
        " access in its warm-up or at the first prompt: its router keeps a tensor without memory (docs/weights.md)",
        cure={"load-format": "auto"},
        source="H100, vLLM 0.33.0, bf16 and FP8 weights, TP1, TP2 and DP2+EP, 2026-11-27; the same engines that load"
        " the weights themselves run",
    ),
)


def cured(
    flags: Flags, layout: Layout, gpu: Gpu, shape: Shape | None, *, version: str, own: Flags, allowed: bool
) -> tuple[dict[str, FlagValue], list[str]]:
    """Return the flags with the cure of every known fault that would strike, and a line for each.

    Args:
        flags: recipe's and settings' flags, translated for the version.
        layout, gpu, shape: of the group.
        version: of vLLM.
        own: flags that the user's own words set; they win.
        allowed: whether a fault that the user's words insist on is planned all the same (`allow_known_fault`).

    Raises:
        Refusal: the user's words ask for a combination that dies, and `allowed` is False.
    """
    at, kept, notes = version_of(version), dict(flags), list[str]()
    for fault in FAULTS:
        if at < fault.since or (fault.until and at >= fault.until):
            continue
        if not fault.happens(Situation({**kept, **own}, layout, gpu, shape)):
            continue
        kept_by_user = sorted(set(fault.cure) & set(own))
        if not kept_by_user and not allowed:
            kept |= fault.cure
            words = " ".join(f"--{name} {value}" for name, value in fault.cure.items())
            notes.append(f"{words} set: {fault.what} ({fault.name}; {fault.source})")
        elif allowed:
            notes.append(f"planned as asked, allow_known_fault is set: {fault.what} ({fault.name}; {fault.source})")
        else:
            raise Refusal(
                f"extra_args holds --{kept_by_user[0]} {own[kept_by_user[0]]}: {fault.what}",
                needed=f"a combination that runs; seen to die: {fault.source}",
                fix=", ".join(filter(None, [f"drop --{kept_by_user[0]} from extra_args", fault.otherwise]))
                + ", or set allow_known_fault",
            )
    return kept, notes
