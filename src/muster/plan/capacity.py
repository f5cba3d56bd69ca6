"""What a plan serves, in one line for people."""

from __future__ import annotations

from collections.abc import Mapping

from muster.plan.gpu_memory import Memory
from muster.spec.recipe import FlagValue

DEFAULT_SEQUENCES = 1024
"""Requests that run at once by default on GPUs of 70 GB and more (vLLM's engine arguments, 0.32 and 0.33)."""


def line(flags: Mapping[str, FlagValue], memory: Memory | None, *, ranks: int) -> str:
    """Return tokens of context, requests at once and tool calls, beside what the cache holds.

    Args:
        flags: as the engine gets them.
        memory: of one GPU; None when the model's shape is not known.
        ranks: data parallel ranks; each has a cache and a queue of its own.
    """
    length = flags.get("max-model-len")
    context = int(length) if length is not None else (memory.needed_tokens if memory else None)
    requests = int(flags.get("max-num-seqs", DEFAULT_SEQUENCES))
    of_each = f" on each of {ranks} ranks" if ranks > 1 else ""
    parts = [
        f"contexts up to {context:,} tokens" if context else "contexts as long as the model's own",
        f"{requests:,} request{'s' * (requests > 1)} at once{of_each}",
        "tool calls" if "enable-auto-tool-choice" in flags else "no tool calls",
    ]
    text = ", ".join(parts)
    if memory is None or not context:
        return f"{text}; what the cache holds is not known before the engine measures it"
    whole = memory.tokens // context
    cache = f"the cache of each rank holds {memory.tokens:,}" if ranks > 1 else f"the cache holds {memory.tokens:,}"
    return f"{text}; {cache} tokens, {whole:,} context{'s' * (whole != 1)} of full length"
