"""The limits in an engine's flags, as numbers: context, batch, requests at once, share of a GPU's memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from muster.errors import Refusal, literal
from muster.plan.vllm_versions import version_of
from muster.spec.strategy import FlagValue

# From vLLM's engine arguments, 0.32 and 0.33, on GPUs of 70 GB and more.
DEFAULT_BATCHED_TOKENS = 8192
DEFAULT_SEQUENCES = 1024

_CONTEXT = "max-model-len"
_LONGEST = ("auto", "-1")
_WHOLE = re.compile(r"(\d{1,15})([kmgtKMGT]?)|(\d{1,12}\.\d{1,12})([kmgt])", re.ASCII)


@dataclass(frozen=True)
class Limits:
    """What one engine is limited to.

    Args:
        context: tokens of one request; None where the flags leave it to the model or, with `auto`, to the engine.
        batched_tokens: tokens of one batch.
        sequences: requests that run at once.
        utilization: share of a GPU's memory, above 0 and at most 1.
    """

    context: int | None
    batched_tokens: int
    sequences: int
    utilization: float


def limits_of(flags: Mapping[str, FlagValue], version: str) -> Limits:
    """Return the limits that flags set, and vLLM's defaults for the others.

    Args:
        flags: as the engine gets them, those of `extra_args` included.
        version: of vLLM.

    Raises:
        Refusal: a flag whose value is no number.
    """
    context = flags.get(_CONTEXT)
    return Limits(
        context=None if context is None or str(context) in _LONGEST else _whole(_CONTEXT, context),
        batched_tokens=_whole("max-num-batched-tokens", flags.get("max-num-batched-tokens", DEFAULT_BATCHED_TOKENS)),
        sequences=_whole("max-num-seqs", flags.get("max-num-seqs", DEFAULT_SEQUENCES)),
        utilization=_share("gpu-memory-utilization", flags.get("gpu-memory-utilization", _utilization(version))),
    )


def _utilization(version: str) -> float:
    return 0.92 if version_of(version) >= (0, 20, 0) else 0.90


def _whole(name: str, value: FlagValue) -> int:
    """Return a whole number as vLLM reads one: `25k` is 25,000 and `25K` is 25,600."""
    match = None if isinstance(value, bool) else _WHOLE.fullmatch(str(value))
    if match is None or not float(match[1] or match[3]):
        raise Refusal(
            f"--{name} is {literal(value)}",
            needed="a whole number above 0, such as 25000 or 25k",
            fix=f"correct {name} in group_data, extra_args or the recipe",
        )
    unit = match[2] or match[4] or ""
    power = " kmgt".index(unit.lower()) if unit else 0
    base = 1024 if unit.isupper() else 1000
    return int(float(match[3]) * base**power) if match[3] else int(match[1]) * base**power


def _share(name: str, value: FlagValue) -> float:
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if isinstance(value, bool) or not 0 < share <= 1:
        raise Refusal(
            f"--{name} is {literal(value)}",
            needed="a share of the GPU's memory, above 0 and at most 1",
            fix=f"correct {name} in group_data, extra_args or the recipe",
        )
    return share
