"""What a plan serves, in one line for people."""

from __future__ import annotations

from muster.guard.endpoint_kinds import COMPLETIONS
from muster.plan.engine_limits import Limits
from muster.plan.gpu_memory import Memory


def line(limits: Limits, memory: Memory | None, *, kind: str, tool_calling: bool, ranks: int) -> str:
    """Return tokens of context, requests at once and tool calls or what else is answered, beside what the cache holds.

    Args:
        limits: of the engine.
        memory: of one GPU; None when the model's shape is not known.
        kind: what the model answers.
        tool_calling: whether the engine takes tool calls.
        ranks: data parallel ranks; each has a cache and a queue of its own.
    """
    context = limits.context or (memory.needed_tokens if memory else None)
    requests = limits.sequences
    of_each = f" on each of {ranks} ranks" if ranks > 1 else ""
    parts = [
        f"contexts up to {context:,} tokens" if context else "contexts as long as the model's own",
        f"{requests:,} request{'s' * (requests > 1)} at once{of_each}",
        ("tool calls" if tool_calling else "no tool calls") if kind == COMPLETIONS else f"answers {kind}",
    ]
    text = ", ".join(parts)
    if memory is None or not context:
        return f"{text}; what the cache holds is not known before the engine measures it"
    whole = memory.requests(context)
    cache = f"the cache of each rank holds {memory.tokens:,}" if ranks > 1 else f"the cache holds {memory.tokens:,}"
    return f"{text}; {cache} tokens, {whole:,} context{'s' * (whole != 1)} of full length"
